//! relight's vocabulary, its two plug-in contracts and its codec.
//!
//! No I/O, no clock, no async runtime and no randomness: every crate of relight may depend on this
//! one, and it depends on none of them.
#![warn(missing_docs)]

pub mod aliases;
pub mod codec;
pub mod detector;
pub mod growth;
pub mod incident;
pub mod record;
pub mod refusal;
pub mod responder;
pub mod rule;
pub mod series;
pub mod signal;
pub mod source;
pub mod telemetry;
pub mod text;
pub mod time;

pub use series::{KEY_GROUPS, KeyGroup, KeyView, Labels};
pub use time::{Span, Timestamp};
