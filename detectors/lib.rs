//! relight's detectors, and the shared parts they are made of.
//!
//! A detector is one `.rs` file, one `.md` file that `relight explain` prints, one line in [`ALL`]
//! and one golden case in `guarantees.rs`; the registry's tests then say what is missing. Nothing in
//! this crate knows a clock, a file, a thread or an incident.
#![warn(missing_docs)]

mod absence;
mod adaptive;
mod arithmetic;
mod calendar;
mod calibration;
mod changepoint;
mod context;
mod curve;
mod elapsed;
mod emission;
mod ewma;
mod models;
mod profile;
mod seasonal;
mod slots;
mod spec;
mod threshold;

#[cfg(test)]
mod excursions;
#[cfg(test)]
mod guarantees;
#[cfg(test)]
mod learning;
#[cfg(test)]
mod registry;

use relight_core::detector::DetectorSpec;

pub use changepoint::Changepoint;
pub use emission::Emission;
pub use ewma::Ewma;

/// Every detector, by name.
pub const ALL: &[DetectorSpec] =
    &[absence::SPEC, adaptive::SPEC, changepoint::SPEC, ewma::SPEC, seasonal::SPEC, threshold::SPEC];
