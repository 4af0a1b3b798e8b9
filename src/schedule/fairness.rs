//! Which destination may run now?
