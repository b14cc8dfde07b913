//! The life of timers, one connection at a time, under simulated time.
