//! relight's responders: one file each, with its page beside it.
//!
//! To add one: `name.rs`, `name.md`, and a line in [`ALL`]. The tests below then say what is missing.
//! Deduplication, retry, gates, timeouts and metrics are not here: they are stages around every responder.
#![warn(missing_docs)]

mod log;

pub use log::Log;
use relight_core::responder::{ResponderSpec, spec_of};

/// Every responder, in the order of their names.
pub const ALL: &[ResponderSpec] = &[spec_of::<Log>()];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use relight_core::incident::{Action, ActionState, Incident, IncidentState};
    use relight_core::responder::{EffectKind, Request, Secrets};
    use relight_core::{Labels, Span, Timestamp};

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
        let (incident, action) = (incident(), action());
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

    fn incident() -> Incident {
        let at = Timestamp::from_secs(1_700_000_000);
        Incident {
            id: "01HF7YAT00TESTTESTTESTTEST".to_owned(),
            rule: "bad-deploy".to_owned(),
            group: Labels::new([("service".to_owned(), "shop".to_owned())]),
            state: IncidentState::Open,
            episode: 1,
            stale: false,
            first_finding: at,
            onset: at,
            detected: Some(at),
            acted: None,
            mitigated: None,
            recovered: None,
            resolved: None,
            resolution: None,
            held_for: Span::ZERO,
            held_turns: 1,
            calm_for: Span::ZERO,
            last_data: at,
            findings: 1,
            relearned: 0,
            worst_score: 2.0,
            evidence: Vec::new(),
            next_step: 0,
            timeline: Vec::new(),
        }
    }

    fn action() -> Action {
        Action {
            id: "01HF7YAT00TESTTESTTESTTEST-1-0".to_owned(),
            incident: "01HF7YAT00TESTTESTTESTTEST".to_owned(),
            episode: 1,
            rule: "bad-deploy".to_owned(),
            step: 0,
            action: "rollback".to_owned(),
            with: "k8s-prod".to_owned(),
            mutates: true,
            effect: EffectKind::FireOnce,
            args: serde_json::json!({ "name": "shop", "to": "last_known_good" }),
            lock: "deploy/shop".to_owned(),
            state: ActionState::Planned,
            approved: false,
            plan: None,
            attempts: 0,
            retry_at: None,
            handed_on: false,
            planned: Timestamp::from_secs(1_700_000_010),
            started: None,
            ended: None,
            verify_until: None,
            verified_for: Span::ZERO,
            sampled: false,
            detail: String::new(),
        }
    }
}
