//! The deterministic core: [`intake`], [`fold`], [`detect`] and [`control`], all sans-IO.
//!
//! No clock, no I/O, no async, no randomness, no iteration over a hash map. Knows no expression
//! language, no file format and no thread: a driver moves data between the four parts and decides
//! when they run. Whatever the driver does, the same records give the same findings, incidents and
//! planned actions.
#![warn(missing_docs)]

pub mod control;
pub mod counters;
pub mod detect;
pub mod directory;
pub mod fold;
pub mod intake;
pub mod sweep;
