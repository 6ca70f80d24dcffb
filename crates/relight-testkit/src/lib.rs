//! Worlds, faults and harnesses for relight's tests. Nothing that ships depends on it.
//!
//! A [`World`] is a log of records per partition, made from a seed; [`Sim`] runs the real engine on
//! it, as calmly or as stormily as asked for. Whatever the storm, the outcome must be the same.

pub mod capture;
pub mod faulty;
pub mod fragile;
pub mod golden;
pub mod people;
pub mod rng;
pub mod rules;
pub mod sim;
pub mod world;

use std::path::PathBuf;

pub use sim::{Outcome, Sim};
pub use world::World;

/// The root of this repository.
///
/// # Panics
///
/// If the tree is not where it was built.
pub fn repository() -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    std::path::Path::new(root).canonicalize().expect("tests run in the tree that they were built in")
}

/// The seeds of the simulation tests: `RELIGHT_SEEDS=from..to` chooses others, for a longer night.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not an input of what it tests")]
pub fn seeds() -> std::ops::Range<u64> {
    let range = std::env::var("RELIGHT_SEEDS").ok();
    let range = range.and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    range.unwrap_or(0..8)
}
