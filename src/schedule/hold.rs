//! Park, probe, release: the state of one tenant's queue.
