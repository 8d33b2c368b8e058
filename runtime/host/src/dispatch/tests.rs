//! Behaviour of the dispatcher.
