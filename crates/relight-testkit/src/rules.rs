//! Settings without a config file: selectors and conditions as plain closures.

use std::sync::Arc;

use relight_core::detector::Policy;
use relight_core::responder::EffectKind;
use relight_core::rule::{
    Condition, ConditionError, DetectorUse, FleetLimit, GroupBy, Limits, Mode, OnInconclusive, RuleSpec,
    RuleView, Settings, Step, Verify,
};
use relight_core::signal::{Aggregate, Binning, By, Select, Selector, SignalInfo, SignalKind, SignalSpec};
use relight_core::{KeyView, Span};

struct Named(&'static str, Option<(&'static str, &'static str)>);

impl Select for Named {
    fn selects(&self, key: KeyView<'_>) -> bool {
        key.name() == self.0 && self.1.is_none_or(|(label, value)| key.get(label) == Some(value))
    }

    fn text(&self) -> &'static str {
        self.0
    }
}

/// Series of one name.
pub fn named(name: &'static str) -> Selector {
    Arc::new(Named(name, None))
}

/// Series of one name with one label.
pub fn labelled(name: &'static str, label: &'static str, value: &'static str) -> Selector {
    Arc::new(Named(name, Some((label, value))))
}

/// A condition over a rule's view.
pub struct When<F>(pub &'static str, pub F);

impl<F: Fn(&RuleView<'_>) -> bool + Send + Sync> Condition for When<F> {
    fn holds(&self, view: &RuleView<'_>) -> Result<bool, ConditionError> {
        Ok((self.1)(view))
    }

    fn text(&self) -> &str {
        self.0
    }
}

/// A signal by some labels.
pub fn signal(name: &str, by: &[&str], kind: SignalKind) -> SignalSpec {
    let by = By::Labels(by.iter().map(|l| (*l).to_owned()).collect());
    SignalSpec { name: name.to_owned(), kind, by }
}

/// A detector of the registry on a signal; `params` is JSON.
pub fn detector(
    name: &str,
    kind: &str,
    params: &serde_json::Value,
    policy: &Policy,
    signal: (usize, &SignalSpec),
    interval: Span,
) -> DetectorUse {
    let spec = relight_detectors::ALL.iter().find(|d| d.name == kind).expect("a registered detector");
    let mut config = (spec.defaults)();
    let given = params.as_object().expect("parameters are an object");
    config.as_object_mut().expect("defaults are an object").extend(given.clone());
    let info = SignalInfo { name: signal.1.name.clone(), interval };
    DetectorUse {
        name: name.to_owned(),
        kind: spec.name,
        state_version: spec.state_version,
        state_shape: (spec.state_shape)(&config),
        signal: signal.0,
        source: (spec.build)(&config, policy, &info).expect("parameters of a test are right"),
    }
}

/// The settings that worlds are simulated with: every kind of signal, every detector, a rule with a
/// ladder and one without.
pub fn simulated() -> Settings {
    let interval = Span::from_secs(10);
    let signals = vec![
        signal("requests", &["service"], SignalKind::Rate { of: named("requests") }),
        signal(
            "errors",
            &["service"],
            SignalKind::Ratio {
                of: labelled("requests", "code", "5xx"),
                to: named("requests"),
                min_denominator: 1.0,
                missing_is_zero: true,
            },
        ),
        signal("load", &["service"], SignalKind::Value { of: named("load"), aggregate: Aggregate::Mean }),
        signal("logs", &["service"], SignalKind::EventCount { of: named("log") }),
        signal("latency", &["service"], SignalKind::Quantile { of: named("latency"), q: 0.9 }),
        SignalSpec { name: "every".to_owned(), kind: SignalKind::EverySeries, by: By::All },
        signal("queue", &["service"], SignalKind::Value { of: named("queue"), aggregate: Aggregate::Sum }),
        signal("pods", &["pod"], SignalKind::Value { of: named("pod_load"), aggregate: Aggregate::Mean }),
        signal("jobs", &["service"], SignalKind::Value { of: named("job"), aggregate: Aggregate::Max }),
    ];
    let quick = Policy { warm_up: 20, calm_bins: 3, ..Policy::default() };
    let use_of = |name: &str, kind: &str, signal: usize, params: serde_json::Value| {
        detector(name, kind, &params, &quick, (signal, &signals[signal]), interval)
    };
    let none = || serde_json::json!({});
    let detectors = vec![
        use_of("requests", "ewma", 0, none()),
        use_of("errors", "ewma", 1, none()),
        use_of("load", "seasonal", 2, none()),
        use_of("logs", "changepoint", 3, none()),
        use_of("latency", "ewma", 4, none()),
        use_of("every", "adaptive", 5, none()),
        use_of("silent", "absence", 2, none()),
        use_of("queue", "ewma", 6, none()),
        use_of("pods", "changepoint", 7, none()),
        use_of("jobs", "seasonal", 8, none()),
    ];
    Settings {
        binning: Binning::Interval(interval),
        allowed_lateness: Span::from_secs(10),
        max_skew: Span::from_secs(120),
        max_series: 100_000,
        series_ttl: Span::from_secs(240),
        sources: Vec::new(),
        signals,
        detectors,
        rules: rules(),
        trouble: None,
        fleet_limit: Some(FleetLimit {
            actions: 6,
            within: Span::from_secs(600),
            share_percent: 50.0,
            minimum: 2,
        }),
        fingerprint: b"simulated".to_vec(),
    }
}

fn rules() -> Vec<RuleSpec> {
    let by_service = || GroupBy::Labels(vec!["service".to_owned()]);
    let any = |name: &'static str| -> Arc<dyn Condition> {
        Arc::new(When(name, |view: &RuleView<'_>| view.detectors.iter().any(|d| d.score > 1.0)))
    };
    let calm: Arc<dyn Condition> = Arc::new(When("in_band", |view: &RuleView<'_>| {
        view.detectors.iter().all(|d| d.in_band() || d.rows == 0)
    }));
    let verify = Verify {
        settle: Span::from_secs(20),
        within: Span::from_secs(120),
        require: calm,
        hold: Span::from_secs(30),
        on_inconclusive: OnInconclusive::Escalate,
    };
    let step = |action: &str, mutates: bool, mode: Mode, verify: Option<Verify>| Step {
        action: action.to_owned(),
        with: "simulated".to_owned(),
        mutates,
        effect: EffectKind::Idempotent,
        mode,
        args: serde_json::json!({}),
        limits: Limits { cooldown: Span::from_secs(300), max_per_day: Some(20), lock: String::new() },
        verify,
    };
    let rule = |name: &str, detectors: Vec<usize>, when, respond| RuleSpec {
        name: name.to_owned(),
        detectors,
        when,
        hold: Span::from_secs(10),
        hold_turns: 2,
        keep_firing: Span::from_secs(60),
        reopen_within: Span::from_secs(300),
        max_flaps: 3,
        group_by: by_service(),
        respond,
        breaker_after: 3,
    };
    vec![
        rule(
            "errors",
            vec![1, 0],
            any("errors"),
            vec![
                step("notify", false, Mode::Auto, None),
                step("rollback", true, Mode::Auto, Some(verify)),
                step("page", false, Mode::Auto, None),
            ],
        ),
        // One that waits for people, who may never come.
        rule(
            "anything",
            vec![5, 2, 3, 4, 6, 8],
            any("anything"),
            vec![step("restart", true, Mode::Approve, None)],
        ),
    ]
}
