//! An incident and an action as they may be: what a responder tries its settings on.

use relight_core::incident::{Action, ActionState, Evidence, Incident, IncidentState};
use relight_core::record::Event;
use relight_core::responder::EffectKind;
use relight_core::{Labels, Span, Timestamp};

/// One incident, and one action about it.
pub(crate) fn incident_and_action() -> (Incident, Action) {
    (incident(), action())
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
        rested: false,
        last_data: at,
        findings: 1,
        relearned: 0,
        worst_score: 2.0,
        evidence: vec![evidence(at)],
        context: vec![deploy(at)],
        groups_known: 0,
        next_step: 0,
        moments_cut: 0,
        timeline: Vec::new(),
    }
}

fn deploy(at: Timestamp) -> Event {
    let labels = Labels::new([("service".to_owned(), "shop".to_owned())]);
    Event { at, kind: "deploy".to_owned(), labels, body: "v7".to_owned() }
}

fn action() -> Action {
    Action {
        id: "01HF7YAT00TESTTESTTESTTEST-1-0".to_owned(),
        incident: "01HF7YAT00TESTTESTTESTTEST".to_owned(),
        episode: 1,
        rule: "bad-deploy".to_owned(),
        group: Labels::default(),
        step: 0,
        action: "rollback".to_owned(),
        with: "k8s-prod".to_owned(),
        mutates: true,
        effect: EffectKind::FireOnce,
        args: serde_json::json!({ "name": "shop", "to": "last_known_good" }),
        lock: "deploy/shop".to_owned(),
        cooldown: Span::ZERO,
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
        fresh_until: None,
        reached: false,
        not_sent: None,
        limit_lifted: false,
        detail: String::new(),
    }
}

fn evidence(at: Timestamp) -> Evidence {
    Evidence {
        detector: "errors_high".to_owned(),
        signal: "errors".to_owned(),
        labels: Labels::new([("service".to_owned(), "shop".to_owned())]),
        at,
        value: 0.071,
        score: 2.0,
        expected: 0.004,
        lower: 0.001,
        upper: 0.012,
    }
}
