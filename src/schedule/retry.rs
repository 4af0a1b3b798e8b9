//! The law of one message: when next, when to give up.
