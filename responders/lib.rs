//! relight's responders: one file each, with its page beside it.
//!
//! To add one: `name.rs`, `name.md`, and a line in [`ALL`]. The tests below then say what is missing.
//! Deduplication, retry, gates, timeouts and metrics are not here: they are stages around every responder.
#![warn(missing_docs)]

mod document;
mod egress;
mod exec;
mod log;
mod sample;
mod signature;
mod strays;
mod template;
mod webhook;

pub use exec::Exec;
pub use log::Log;
use relight_core::responder::{ResponderSpec, spec_of};
pub use webhook::Webhook;

/// Every responder, in the order of their names.
pub const ALL: &[ResponderSpec] = &[spec_of::<Exec>(), spec_of::<Log>(), spec_of::<Webhook>()];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use relight_core::responder::{Request, Secrets};

    use super::*;

    const HEADINGS: [&str; 4] = ["## What it does", "## When to use it", "## Settings", "## Example"];

    #[test]
    fn names_are_unique_and_sorted() {
        let names: Vec<&str> = ALL.iter().map(|spec| spec.name).collect();
        let sorted: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names, sorted.into_iter().collect::<Vec<_>>());
    }

    /// Guarantee: `relight explain` says what it does, when to use it, and every setting.
    #[test]
    fn every_page_has_its_headings_and_settings() {
        for spec in ALL {
            assert!(spec.doc.starts_with(&format!("# {}\n", spec.name)), "{}: title", spec.name);
            for heading in HEADINGS {
                assert!(spec.doc.contains(&format!("\n{heading}\n")), "{}: {heading}", spec.name);
            }
            let schema = (spec.schema)();
            for (name, setting) in schema["properties"].as_object().into_iter().flatten() {
                assert!(spec.doc.contains(&format!("`{name}`")), "{}: {name} is not on its page", spec.name);
                assert!(setting["description"].is_string(), "{}: {name} has no description", spec.name);
            }
        }
    }

    #[test]
    fn every_example_builds_and_unknown_settings_do_not() {
        for spec in ALL {
            let mut settings = (spec.example)();
            assert!((spec.build)(&settings, &Secrets::default()).is_ok(), "{}", spec.name);
            settings["no_such_setting"] = true.into();
            assert!((spec.build)(&settings, &Secrets::default()).is_err(), "{}", spec.name);
        }
    }

    /// Guarantee: the same request yields the same plan, from the same responder and from another one with the
    /// same settings: plans are journalled and compared.
    #[test]
    fn plans_are_pure() {
        let (incident, action) = sample::incident_and_action();
        let request = Request { action: &action, incident: &incident };
        for spec in ALL {
            let make = || (spec.build)(&(spec.example)(), &Secrets::default()).expect("an example builds");
            let (one, other) = (make(), make());
            let plan = one.plan(&request).expect("a plan");
            assert!(!plan.summary.is_empty() && !plan.summary.contains('\n'), "{}", spec.name);
            assert_eq!(one.plan(&request), Ok(plan.clone()), "{}", spec.name);
            assert_eq!(other.plan(&request), Ok(plan), "{}", spec.name);
        }
    }
}
