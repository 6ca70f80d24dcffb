//! What a valid config means.

mod fake;

use relight_config::{Config, defaults, parse, schema};
use relight_core::responder::Reach;
use relight_core::rule::{DetectorView, FleetLimit, GroupBy, Mode, RuleView};
use relight_core::signal::{Binning, By, SignalKind};
use relight_core::{Labels, Span};

/// The example of the design, with one more rule.
const SHOP: &str = r#"
interval: 5s
mode: approve
secrets: {token: '${TOKEN}'}
signals:
  checkout_errors:
    ratio: {of: 'http_requests_total{service="checkout",code=~"4..|5.."}', to: 'http_requests_total{service="checkout"}'}
    by: [cluster, service]
    min_denominator: 50
  latency: {value: {of: latency_ms, aggregate: max}, by: [cluster, service, node]}
  traffic: {rate: requests_total, by: [service]}
  p99: {quantile: {of: duration, q: 0.99}}
  deploys: {events: 'deploy{service!=""}'}
detectors:
  err_ewma: {type: ewma, signal: checkout_errors, half_life: 10m, threshold: 4, direction: above, min_deviation: 0.01}
  slow: {type: adaptive, signal: latency}
responders:
  chat: {type: post, to: chat, reach: notify}
  k8s: {type: post, to: api, secret: token, mode: suggest}
rules:
  - name: checkout-bad-deploy
    when: err_ewma.score > 1.0 && changed("deploy", "30m")
    for: 20s
    group_by: [cluster, service]
    respond:
      - {do: notify, with: chat}
      - do: rollback
        with: k8s
        args: {kind: Deployment, replicas: 3}
        limits: {max_per_day: 3, lock: deploy/shop/checkout}
        verify: {settle: 45s, within: 5m, require: err_ewma.in_band, for: 60s, on_inconclusive: wait}
    circuit_breaker: {open_after: 4, reset: manual}
  - {name: slow, when: 'slow.anomalous >= 2 && err_ewma.rows > 0', mode: observe}
"#;

fn config(text: &str) -> Config {
    let env = |name: &str| (name == "TOKEN").then(|| "secret".to_owned());
    parse("test.yaml", text, &fake::REGISTRY, &env).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_example_of_the_design_means_what_it_says() {
    let Config { settings, responders, mode, .. } = config(SHOP);
    assert_eq!((mode, settings.binning), (Mode::Approve, Binning::Interval(Span::from_secs(5))));
    let names: Vec<&str> = settings.signals.iter().map(|signal| signal.name.as_str()).collect();
    assert_eq!(names, ["checkout_errors", "deploys", "latency", "p99", "traffic"]);
    assert!(matches!(settings.signals[0].kind, SignalKind::Ratio { min_denominator: 50.0, .. }));
    assert_eq!(settings.signals[1].by, By::All);
    assert_eq!((settings.detectors[0].name.as_str(), settings.detectors[0].signal), ("err_ewma", 0));
    let shape = &settings.detectors[0].state_shape;
    assert!(shape.starts_with(r#"ewma half_life="10m" of ratio "http_requests_total{"#), "{shape}");
    assert_eq!(responders.keys().collect::<Vec<_>>(), ["chat", "k8s"]);
    assert_eq!(responders["k8s"].capabilities().reach, Reach::Mutate);
}

#[test]
fn a_rule_means_what_it_says() {
    let rules = config(SHOP).settings.rules;
    let rule = &rules[0];
    assert_eq!(rule.detectors, [0]);
    assert_eq!((rule.hold, rule.keep_firing), (Span::from_secs(20), Span::from_secs(180)));
    assert_eq!((rule.reopen_within, rule.max_flaps, rule.breaker_after), (Span::from_secs(1800), 3, 4));
    let [notify, rollback] = rule.respond.as_slice() else { panic!("two steps") };
    assert_eq!((notify.mutates, notify.mode, notify.limits.cooldown), (false, Mode::Approve, Span::ZERO));
    // The lowest of the config's `approve`, the rule's `auto` and the responder's `suggest`.
    assert_eq!((rollback.mutates, rollback.mode), (true, Mode::Suggest));
    assert_eq!(rollback.limits.cooldown, Span::from_secs(600));
    assert_eq!(rollback.args, serde_json::json!({ "kind": "Deployment", "replicas": 3 }));
    let verify = rollback.verify.as_ref().expect("a verification");
    assert_eq!((verify.settle, verify.within, verify.hold), (secs(45), secs(300), secs(60)));
    // Left out, the group is what the signals of both detectors have.
    assert_eq!(rules[1].detectors, [0, 1]);
    assert_eq!(rules[1].group_by, GroupBy::Labels(vec!["cluster".to_owned(), "service".to_owned()]));
}

const fn secs(n: i64) -> Span {
    Span::from_secs(n)
}

/// Guarantee: no config, an empty one and one of comments are the same: every series is watched, nothing is done.
#[test]
fn nothing_configured_is_a_useful_default() {
    let silent = defaults(&fake::REGISTRY);
    for text in ["", "# nothing yet\n", "signals:\nrules:\n", "{}"] {
        let Config { settings, mode, .. } = config(text);
        assert_eq!(settings.fingerprint, silent.settings.fingerprint);
        assert_eq!(
            (mode, settings.interval(), settings.allowed_lateness),
            (Mode::Suggest, secs(10), secs(10))
        );
        assert!(matches!(settings.signals[0].kind, SignalKind::EverySeries));
        assert_eq!(settings.detectors[0].kind, "adaptive");
        let rule = &settings.rules[0];
        assert_eq!((rule.name.as_str(), rule.hold_turns, rule.respond.len()), ("anomaly", 3, 0));
        assert_eq!(rule.when.text(), "adaptive.anomalous >= min(3, adaptive.rows)");
    }
}

#[test]
fn signals_without_detectors_get_adaptive_ones() {
    let settings = config("signals: {a: {rate: x}, b: {value: y}}").settings;
    let detectors: Vec<_> = settings.detectors.iter().map(|d| (d.name.as_str(), d.kind, d.signal)).collect();
    assert_eq!(detectors, [("a", "adaptive", 0), ("b", "adaptive", 1)]);
    assert_eq!(settings.rules[0].detectors, [0, 1]);
}

/// Guarantee: what state depends on moves the fingerprint, and nothing else does.
#[test]
fn the_fingerprint_names_what_state_depends_on() {
    let base = "signals: {s: {rate: x}}\ndetectors: {d: {type: ewma, signal: s";
    let of = |text: &str| config(text).settings.fingerprint;
    let first = of(&format!("{base}}}}}"));
    for same in
        [", threshold: 9}}", ", half_life: 10m}}", ", calm_bins: 9}}", "}}\nmode: auto", "}}\nmax_series: 9"]
    {
        assert_eq!(of(&format!("{base}{same}")), first, "{same}");
    }
    for other in [", half_life: 20m}}", "}}\ninterval: 20s", "}}\ninterval: sample"] {
        assert_ne!(of(&format!("{base}{other}")), first, "{other}");
    }
}

/// Guarantee: YAML 1.2. A metric called `y` and a responder told `no` are texts, and numbers keep their digits.
#[test]
fn words_are_not_taken_for_booleans() {
    let text = "signals: {no: {rate: y}}\nresponders: {p: {type: post, to: off}}\n\
        detectors: {d: {type: ewma, signal: no}}\n\
        rules: [{name: on, when: d.score > 1, respond: [{do: yes, with: p, args: {a: n, b: true, c: 12345678901234567890}}]}]";
    let step = config(text).settings.rules.remove(0).respond.remove(0);
    assert_eq!(step.action, "yes");
    assert_eq!(step.args, serde_json::json!({ "a": "n", "b": true, "c": 12_345_678_901_234_567_890_u64 }));
}

fn holds(when: &str, detector: DetectorView, group: &[(&str, &str)], change: Option<&str>) -> bool {
    let text = format!(
        "signals: {{s: {{rate: x, by: [env, service.name]}}}}\ndetectors: {{d: {{type: ewma, signal: s}}}}\n\
         rules: [{{name: r, when: '{when}'}}]"
    );
    let rule = config(&text).settings.rules.remove(0);
    let group = Labels::new(group.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let changed = |kind: &str, window: Span| change == Some(kind) && window == Span::from_secs(1800);
    let view = RuleView { detectors: &[detector], group: &group, changed: &changed };
    rule.when.holds(&view).unwrap_or_else(|error| panic!("{when}: {error}"))
}

#[test]
fn conditions_see_detectors_groups_and_changes() {
    let wild = DetectorView { score: 1.5, rows: 3, anomalous: 2, with_data: 3, ..DetectorView::default() };
    let group = [("env", "prod"), ("service.name", "shop")];
    for (when, expected) in [
        ("d.score > 1", true),
        ("d.score > 1.5", false),
        ("d.anomalous >= 2 && d.rows == 3", true),
        ("d.score > 1 && d.in_band", false),
        ("d.score > 1 || d.stale", true),
        (r#"d.score > 1 && changed("deploy", "30m")"#, true),
        (r#"d.score > 1 && changed("deploy", "24h")"#, false),
        (r#"d.score > 1 && changed("flag", "30m")"#, false),
        (r#"d.score > 1 && group.env == "prod" && group["service.name"].startsWith("sh")"#, true),
        (r#"d.score > 1 && group.env in ["dev", "test"]"#, false),
        ("(d.rows > 2 ? d.score : 0.0) > 1.0", true),
        ("2 * d.anomalous > d.rows", true),
    ] {
        assert_eq!(holds(when, wild, &group, Some("deploy")), expected, "{when}");
    }
    // A label that the group lacks is the empty text, as in PromQL.
    assert!(holds(r#"d.score > 1 && group.env == """#, wild, &[], None));
}

/// Guarantee: an editor that completes from the schema offers what the daemon takes.
#[test]
fn the_schema_lists_every_key_with_its_plug_ins() {
    let schema = schema(&fake::REGISTRY);
    for key in ["interval", "mode", "signals", "detectors", "rules", "responders", "secrets"] {
        assert!(schema["properties"][key]["description"].is_string(), "{key}");
    }
    let ewma = &schema["properties"]["detectors"]["additionalProperties"]["oneOf"][1];
    for key in ["type", "signal", "half_life", "threshold", "direction", "relearn_after"] {
        assert!(!ewma["properties"][key].is_null(), "{key}");
    }
    let text = schema.to_string();
    for reference in text.split("\"#/$defs/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(!schema["$defs"][reference].is_null(), "{reference} points nowhere");
    }
}

fn example(name: &str) -> Config {
    let path = format!("{}/../../config/{name}", env!("CARGO_MANIFEST_DIR"));
    config(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")))
}

/// Guarantee: the documented default config is the default, and names every key of the file.
#[test]
fn the_default_config_is_the_default() {
    let written = example("default.yaml");
    let silent = defaults(&fake::REGISTRY);
    assert_eq!(written.settings.fingerprint, silent.settings.fingerprint);
    assert_eq!(format!("{:?}", written.settings.rules), format!("{:?}", silent.settings.rules));
    let numbers = |config: &Config| {
        let Config { settings, mode, responders, .. } = config;
        let bounds =
            (settings.max_series, settings.series_ttl, settings.sources.clone(), config.daemon.memory);
        (settings.allowed_lateness, settings.max_skew, bounds, settings.fleet_limit, *mode, responders.len())
    };
    assert_eq!(numbers(&written), numbers(&silent));
    assert_eq!(written.sources, silent.sources);

    let text = include_str!("../../../config/default.yaml");
    let schema = schema(&fake::REGISTRY);
    let keys = |schema: &serde_json::Value| -> Vec<String> {
        schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let defs = ["Signal", "Rule", "Step", "Limits", "Verify", "CircuitBreaker", "FleetLimit"];
    let source_kinds = schema["properties"]["sources"]["additionalProperties"]["oneOf"].as_array();
    let source_keys = source_kinds.into_iter().flatten().flat_map(keys);
    let of_sources = ["otlp.Tls", "otlp.Limits"].into_iter().flat_map(|name| keys(&schema["$defs"][name]));
    let all = defs.iter().flat_map(|name| keys(&schema["$defs"][name])).chain(keys(&schema));
    let all = all.chain(source_keys).chain(of_sources);
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let missing: Vec<String> = all.filter(|key| !words.contains(&key.as_str())).collect();
    assert!(missing.is_empty(), "config/default.yaml says nothing of {missing:?}");
}

/// Guarantee: a fleet limit holds unless it is switched off; what is left out is as documented.
#[test]
fn a_fleet_limit_is_on_by_default() {
    let limit = |text: &str| config(text).settings.fleet_limit;
    let documented = FleetLimit { actions: 5, within: Span::from_secs(600), share_percent: 20.0, minimum: 1 };
    assert_eq!(limit(""), Some(documented));
    assert_eq!(limit("fleet_limit: {}"), Some(documented));
    assert_eq!(limit("fleet_limit: off"), None);
    let written = FleetLimit { actions: 2, share_percent: 12.5, within: Span::from_secs(60), minimum: 3 };
    assert_eq!(limit("fleet_limit: {actions: 2, within: 1m, share: 12.5%, minimum: 3}"), Some(written));
}

/// Guarantee: bounds are what is written, of each source its own; without any it is the table's.
#[test]
fn bounds_are_as_written() {
    let text = "\
max_series: 9
series_ttl: 1h
memory: {soft_bytes: 5, hard_bytes: 7}
sources:
  a: {type: otlp, limits: {max_series: 3}}
  b: {type: kafka, topics: [{topic: t, format: otlp_proto}], max_series: 4}
  c: {type: alertmanager}
";
    let config = config(text);
    assert_eq!((config.settings.max_series, config.settings.series_ttl), (9, Span::from_secs(3_600)));
    assert_eq!(config.daemon.memory, Some((5, 7)));
    let mut bounds: Vec<_> =
        config.settings.sources.iter().map(|s| (s.name.as_str(), s.max_series)).collect();
    bounds.sort_unstable();
    assert_eq!(bounds, [("a", Some(3)), ("b", Some(4)), ("c", None)]);
}

/// Guarantee: the shop's ladder for a bad deploy is notify, rollback with its proof, page.
#[test]
fn the_shops_ladder_is_whole() {
    let config = example("shop.yaml");
    let rule = config.settings.rules.iter().find(|rule| rule.name == "bad-deploy").expect("the rule");
    let steps: Vec<_> =
        rule.respond.iter().map(|s| (s.action.as_str(), s.mutates, s.verify.is_some())).collect();
    assert_eq!(steps, [("notify", false, false), ("rollback", true, true), ("page", false, false)]);
    assert!(config.settings.rules.iter().all(|rule| rule.respond.iter().all(|step| step.mode == Mode::Auto)));
}

#[test]
fn every_file_in_config_is_valid() {
    let folder = format!("{}/../../config", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(folder).expect("the folder of examples");
    let names: Vec<String> =
        files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name == "default.yaml"));
    for name in &names {
        example(name);
    }
}

/// Guarantee: state is kept while type, parameters that shape it and signal are the same, and no longer.
#[test]
fn state_has_a_shape() {
    let shape = |signal: &str, detector: &str| {
        let text = format!("signals: {{s: {signal}}}\ndetectors: {{d: {detector}}}\n");
        config(&text).settings.detectors[0].state_shape.clone()
    };
    let usual = shape("{rate: a, by: [x]}", "{type: ewma, signal: s}");
    assert_eq!(shape("{rate: a, by: [x]}", "{type: ewma, signal: s, threshold: 9}"), usual);
    for (signal, detector) in [
        ("{rate: a, by: [x]}", "{type: threshold, signal: s, half_life: 10m}"),
        ("{rate: a, by: [x]}", "{type: ewma, signal: s, half_life: 20m}"),
        ("{rate: b, by: [x]}", "{type: ewma, signal: s}"),
        ("{rate: a, by: [y]}", "{type: ewma, signal: s}"),
        ("{value: a, by: [x]}", "{type: ewma, signal: s}"),
    ] {
        assert_ne!(shape(signal, detector), usual, "{signal} {detector}");
    }
}

/// Scenario: relight is off, or one of its rules, or a responder.
/// Guarantee: a rule that is off is not evaluated, and so opens no incident; one whose responder is off opens them, and
/// sends nothing.
#[test]
fn off_is_off() {
    assert!(config("mode: off").settings.rules.is_empty());
    assert!(!config("mode: observe").settings.rules.is_empty());
    let rules = |responder: &str, one: &str, other: &str| -> Vec<(String, Mode)> {
        let text = format!(
            "mode: auto
signals: {{a: {{rate: a_total, by: [service]}}, b: {{rate: b_total, by: [service]}}}}
detectors: {{a: {{type: ewma, signal: a}}, b: {{type: ewma, signal: b}}}}
responders: {{pager: {{type: post, to: x, mode: {responder}}}}}
rules:
  - {{name: one, when: a.score > 1, mode: {one}, respond: [{{do: page, with: pager}}]}}
  - {{name: other, when: b.score > 1, mode: {other}, respond: [{{do: page, with: pager}}]}}
"
        );
        config(&text).settings.rules.into_iter().map(|rule| (rule.name, rule.respond[0].mode)).collect()
    };
    let named = |name: &str, mode| (name.to_owned(), mode);
    assert_eq!(rules("auto", "off", "auto"), [named("other", Mode::Auto)]);
    assert_eq!(rules("auto", "observe", "off"), [named("one", Mode::Observe)]);
    assert_eq!(rules("auto", "off", "off"), []);
    assert_eq!(rules("off", "auto", "suggest"), [named("one", Mode::Off), named("other", Mode::Off)]);
}
