//! What is wrong with a config, and how it is said.

mod fake;

use std::fmt::Write as _;

use relight_config::parse;

fn errors(text: &str) -> String {
    match parse("c.yaml", text, &fake::REGISTRY, &|_| None) {
        Ok(_) => panic!("this was taken for valid:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

/// Checks the lines of the report; the last one, with their number, is added here.
fn check(text: &str, expected: &[&str]) {
    let mut report = String::new();
    for line in expected {
        writeln!(report, "c.yaml:{line}").expect("a String takes any text");
    }
    let count = expected.len();
    write!(report, "{count} error{}; nothing was started", if count == 1 { "" } else { "s" })
        .expect("a String takes any text");
    assert_eq!(errors(text), report);
}

const HEAD: &str = "\
signals:
  errs: {rate: errors_total, by: [service]}
detectors:
  d: {type: ewma, signal: errs}
responders:
  pager: {type: post, to: x}
rules:
";

/// Scenario: a file with a fault of every kind.
/// Guarantee: one run reports them all, in the order of their lines, and none twice.
#[test]
fn everything_at_once() {
    let text = "\
intervall: 10s
mode: automatic
max_series: 0
allowed_lateness: 10
allowed_lateness: 1m
max_skew: ${NOT_SET}
signals:
  errs: {rate: 'errors_total{', by: service}
  both: {rate: a, value: b}
detectors:
  d: {type: ewma, signal: errs, half_lfe: 10m, threshold: high}
  e: {type: emwa, signal: errs}
  f: {signal: errs}
  g: {type: ewma, signal: nowhere}
  h: {type: ewma, signal: errs, half_life: 1s}
  i-j: {type: ewma, signal: errs}
responders:
  pager: {type: post, to: ''}
  chat: {type: post}
rules:
  - name: a
    when: d.score > 1 && e.rows > 0 && f.rows > 0
    respond:
      - do: page
        with: pagr
  - {when: d.score > 1}
";
    check(
        text,
        &[
            "1:1: intervall: unknown key; did you mean `interval`?",
            "2:1: mode: `automatic`: unknown word; did you mean `auto`?",
            "3:1: max_series: 0 is below 1",
            "4:1: allowed_lateness: expected a duration such as `10s`, `1m30s` or `250ms`, found the number 10",
            "5:1: allowed_lateness: duplicate key; its first value stands above",
            "6:1: max_skew: `${NOT_SET}` is no duration (write it as `10s`, `1m30s`, `250ms`, `7d`)",
            "6:1: max_skew: the environment has no variable `NOT_SET`",
            "8:10: signals.errs.rate: `errors_total{` is no PromQL selector: unexpected end of input inside braces",
            "8:33: signals.errs.by: expected a list, found the text `service`",
            "9:3: signals.both: needs exactly one of value, rate, ratio, quantile, events, every_series",
            "11:33: detectors.d.half_lfe: unknown key; did you mean `half_life`?",
            "11:48: detectors.d.threshold: expected a number, found the text `high`",
            "12:7: detectors.e.type: `emwa`: unknown type; did you mean `ewma`?",
            "13:3: detectors.f: `type` is missing (have: adaptive, ewma, threshold)",
            "14:19: detectors.g.signal: no signal named `nowhere` (have: both, errs)",
            "15:33: detectors.h.half_life: shorter than the interval",
            "16:3: detectors.i-j: rules call it by this name: letters, digits and `_`, not beginning with a digit",
            "18:23: responders.pager.to: is empty",
            "19:3: responders.chat: `to` is missing",
            "25:9: rules[0].respond[0].with: no responder named `pagr` (have: chat, pager)",
            "26:5: rules[1]: `name` is missing",
        ],
    );
}

/// Scenario: rules with something missing or of the wrong kind, and other faults beside that.
/// Guarantee: a faulty part of a rule hides no other fault of it.
#[test]
fn a_faulty_part_hides_no_other() {
    let text = format!(
        "{HEAD}  - name: r
    when: d.scor > 1
    group_by: [service, zone]
    respond:
      - {{do: page, with: pagr, verify: {{settle: soon, require: d.in_bnd}}}}
      - page
      - {{with: pagerr}}
  - {{name: r}}
  - {{name: s, when: 'd.score > 1 && group.zone == \"a\"'}}
"
    );
    check(
        &text,
        &[
            "9:5: rules[0].when: d.scor: unknown field; did you mean `score`?",
            "12:20: rules[0].respond[0].with: no responder named `pagr` (have: pager)",
            "12:32: rules[0].respond[0].verify: `within` is missing",
            "12:41: rules[0].respond[0].verify.settle: `soon` is no duration (write it as `10s`, `1m30s`, `250ms`, `7d`)",
            "12:55: rules[0].respond[0].verify.require: d.in_bnd: unknown field; did you mean `in_band`?",
            "13:9: rules[0].respond[1]: expected a map, found the text `page`",
            "14:9: rules[0].respond[2]: `do` is missing",
            "14:10: rules[0].respond[2].with: no responder named `pagerr` (have: pager)",
            "15:5: rules[1]: `when` is missing",
            "15:6: rules[1].name: each rule needs a name of its own",
            "16:15: rules[2].when: group.zone: no label of its groups named `zone` (have: service); `group_by` would add it",
        ],
    );
}

#[test]
fn what_is_no_yaml_is_said_with_its_place() {
    for (text, place) in [
        ("a: [", "1:"),
        ("interval: 10s\n  mode: auto", "2:"),
        ("a: \"open", "1:"),
        ("- 1\n- 2", "1:1: expected a map, found a list"),
        ("just text", "1:1: expected a map, found the text `just text`"),
        ("\u{0}", "1:"),
        ("a: *nowhere", "1:4"),
    ] {
        let report = errors(text);
        assert!(report.starts_with(&format!("c.yaml:{place}")), "{report}");
        assert!(report.ends_with("; nothing was started"), "{report}");
        assert!(report.lines().count() == 2, "{report}");
    }
}

/// Guarantee: what would blow up a reader is an ordinary error.
#[test]
fn bombs_are_refused() {
    let mut aliases = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
    for i in 1..10 {
        let before = format!("*a{}", i - 1);
        let list = vec![before; 10].join(",");
        writeln!(aliases, "a{i}: &a{i} [{list}]").expect("a String takes any text");
    }
    let nested = |open: &str, n: usize| format!("a: {}", open.repeat(n));
    let cel = format!("{HEAD}  - {{name: r, when: '{}d.score > 1'}}", "(".repeat(2000));
    let list = format!("{HEAD}  - {{name: r, when: '{}d.stale'}}", "[".repeat(2000));
    let promql = format!("signals: {{s: {{rate: '{}'}}}}", "(".repeat(4000));
    let large = "#".repeat(2 << 20);
    let all = [
        aliases,
        nested("[", 100_000),
        nested("{a: ", 100_000),
        nested("- ", 5000),
        cel,
        list,
        promql,
        large,
    ];
    for text in all {
        assert!(errors(&text).ends_with("nothing was started"));
    }
}

fn rule(rule: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|line| format!("8:{line}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&format!("{HEAD}  - {{name: r, {rule}}}"), &expected);
}

#[test]
fn conditions_are_checked_before_they_run() {
    rule("when: d.scor > 1", &["15: rules[0].when: d.scor: unknown field; did you mean `score`?"]);
    rule("when: e.score > 1", &["15: rules[0].when: no detector named `e` (have: d)"]);
    rule("when: d > 1", &["15: rules[0].when: `d` is a detector: ask for its score, `d.score`"]);
    rule("when: d.score", &["15: rules[0].when: must be true or false, but a part of it is of type float"]);
    rule(
        "when: d.score >",
        &["15: rules[0].when: not valid CEL at 1:10: Syntax error: mismatched input '<EOF>'"],
    );
    rule("when: 1 > 0", &["15: rules[0].when: names no detector: nothing would ever evaluate it"]);
    rule(
        "when: 'd.score > 1 && changed(\"deploy\")'",
        &[
            "15: rules[0].when: `changed` takes a kind of event and a window, both quoted: changed(\"deploy\", \"30m\")",
        ],
    );
    rule(
        "when: 'd.score > 1 && changed(\"deploy\", \"24h1s\")'",
        &["15: rules[0].when: changed: 24h1s is too long: changes are remembered for 1d"],
    );
    rule("when: 'd.score > 1 && nofunc(d.rows)'", &["15: rules[0].when: no function named `nofunc`"]);
    rule(
        "when: '[1, 2].exists(x, d.rows == x)'",
        &["15: rules[0].when: only comparisons, arithmetic, lists and functions are allowed here"],
    );
}

/// Scenario: a fault behind an `&&` that is false in calm times.
/// Guarantee: it is found all the same.
#[test]
fn a_fault_cannot_hide_behind_a_short_circuit() {
    let line = "15: rules[0].when: found no matching overload for '_>_' applied to '(string, int)'";
    rule("when: 'd.score > 1 && (group.service == \"x\" && \"a\" > 1)'", &[line]);
}

#[test]
fn a_rule_must_be_able_to_end() {
    let line = "15: rules[0].when: can be true with every score 0: it would not end";
    for when in [
        "d.score >= 0",
        "d.in_band",
        "d.rows > 2 && !d.stale",
        "d.score > 1 || changed(\"deploy\", \"1h\")",
        "d.score > 1 || group.service == \"shop\"",
        "d.score > 1 || group.service != \"shop\"",
    ] {
        rule(&format!("when: '{when}'"), &[line]);
    }
}

#[test]
fn a_rules_groups_must_exist_in_its_signals() {
    rule(
        "when: d.score > 1, group_by: [cluster, service]",
        &["34: rules[0].group_by: `d` cannot be grouped by `cluster`: its signal `errs` is by [service]"],
    );
    rule(
        "when: 'd.score > 1 && group.cluster == \"a\"', group_by: [service]",
        &["15: rules[0].when: group.cluster: no label of `group_by` named `cluster` (have: service)"],
    );
}

#[test]
fn a_verification_must_fit_into_its_time() {
    rule(
        "when: d.score > 1, respond: [{do: x, with: pager, verify: {settle: 1m, within: 90s, for: 30s, require: d.in_band}}]",
        &[
            "86: rules[0].respond[0].verify.within: 1m30s is over before anything can be verified: `settle` and `for` take 1m30s",
        ],
    );
}

#[test]
fn secrets_come_from_files_that_exist() {
    check(
        "secrets: {a_file: /no/such/file}\nresponders: {p: {type: post, to: x, secret: a}}",
        &[
            "1:11: secrets.a_file: /no/such/file cannot be read: No such file or directory (os error 2)",
            "2:37: responders.p.secret: no secret `a`",
        ],
    );
}

/// Guarantee: a secret from the environment that ends up where it is wrong is not printed.
#[test]
fn what_came_from_the_environment_is_not_shown() {
    let env = |_: &str| Some("hunter2secret".to_owned());
    let text = "mode: ${PW}\nmax_skew: ${PW}\nmax_series: ${PW}\nsignals: {s: {rate: '${PW}{'}}\nsecrets: {a_file: '${PW}'}";
    let report = parse("c.yaml", text, &fake::REGISTRY, &env).expect_err("five faults").to_string();
    assert!(!report.contains("hunter2") && report.contains("`${PW}`: unknown word"), "{report}");
    assert!(report.ends_with("5 errors; nothing was started"), "{report}");
}

/// Scenario: sources that cannot work, beside two that can.
/// Guarantee: each fault stands at its key with what would be right; whoever can reach relight from another
/// machine must prove who they are.
#[test]
fn sources_are_checked() {
    let text = "\
secrets: {token: t, none: ''}
sources:
  a: {type: otlp, grpc: ':4317', http: localhost}
  b: {type: otlp, grpc: off, http: off}
  c: {type: otlp, grpc: off, http: '0.0.0.0:4318'}
  d: {type: otlp, grpc: off, http: '0.0.0.0:4319', bearer: [token]}
  e: {type: otlp, grpc: off, http: '0.0.0.0:4320', tls: {cert_file: c, key_file: k}}
  f: {type: otlp, grpc: off, http: '0.0.0.0:4321', tls: {cert_file: c, key_file: k}, bearer: [token]}
  g: {type: otlp, grpc: off, http: '[::]:4322', tls: {cert_file: c, key_file: k, client_ca_file: a}}
  h: {type: alertmanagr}
  i: {type: alertmanager, path: alerts, bearer: [tokn, none]}
  j: {type: prometheus_remote_write, listen: 127.0.0.1:9203, limits: {max_requests: 0, max_wire_byte: 1}}
  k: {type: otlp, grpc: off, http: 127.0.0.1:9202, tls: {cert_file: c}}
  l: {type: prometheus_remote_write, listen: off}
  m: {type: prometheus_remote_write, listen: 127.0.0.1:9202}
";
    check(
        text,
        &[
            "3:19: sources.a.grpc: `:4317` names no address: write `127.0.0.1:4317`, or `0.0.0.0:4317` for all of this machine's",
            "3:34: sources.a.http: `localhost` is no address with a port, such as `127.0.0.1:4317` or `[::1]:4317`",
            "4:3: sources.b: listens nowhere: give `grpc` or `http` an address",
            "5:30: sources.c.http: 0.0.0.0:4318 can be reached from other machines: add `tls: {cert_file, key_file}` and `bearer: [SECRET]` or `tls.client_ca_file`, or listen on 127.0.0.1:4318",
            "6:30: sources.d.http: 0.0.0.0:4319 can be reached from other machines: add `tls: {cert_file, key_file}`, or listen on 127.0.0.1:4319",
            "7:30: sources.e.http: 0.0.0.0:4320 can be reached from other machines: add `bearer: [SECRET]` or `tls.client_ca_file`, or listen on 127.0.0.1:4320",
            "10:7: sources.h.type: `alertmanagr`: unknown type; did you mean `alertmanager`?",
            "11:27: sources.i.path: `alerts` does not begin with `/`",
            "11:50: sources.i.bearer[0]: no secret named `tokn`",
            "11:56: sources.i.bearer[1]: the secret `none` is empty",
            "12:71: sources.j.limits.max_requests: 0 is below 1",
            "12:88: sources.j.limits.max_wire_byte: unknown key; did you mean `max_wire_bytes`?",
            "13:52: sources.k.tls: `key_file` is missing",
            "14:38: sources.l.listen: `off` is no address with a port, such as `127.0.0.1:4317` or `[::1]:4317`",
            "15:38: sources.m.listen: `sources.i.listen` listens on 127.0.0.1:9202 already",
        ],
    );
}

/// Scenario: two Kafka sources that each have a lock, and one whose lock has the group of its offsets.
/// Guarantee: relight acts or stands by as a whole, so there is one lock; each mistake is told at its key.
#[test]
fn there_is_one_lock() {
    let text = "\
sources:
  a: {type: kafka, topics: [{topic: t, format: otlp_proto}], lock: {topic: l, group: g}}
  b: {type: kafka, topics: [{topic: u, format: otlp_proto}], lock: {topic: l, group: g}}
  c: {type: kafka, topics: [{topic: v, format: otlp_proto}], group: g, lock: {topic: l, group: g}}
";
    let report = errors(text);
    assert!(!report.contains("sources.a"), "{report}");
    assert!(report.contains("3:62: sources.b.lock: another source has one already"), "{report}");
    assert!(report.contains("sources.c.lock.group: must differ from `group`"), "{report}");
}

/// Scenario: slips in a condition and in a policy.
/// Guarantee: a misspelt detector in a condition is answered with the name that was meant, and a deviation
/// below zero, which nothing can be smaller than, is an error.
#[test]
fn slips_in_rules_and_policies_are_told() {
    let config = |policy: &str, when: &str| {
        let detector = format!("err_ewma: {{type: ewma, signal: errs{policy}}}");
        HEAD.replace("d: {type: ewma, signal: errs}", &detector) + &format!("  - {{name: r, when: {when}}}")
    };
    check(
        &config("", "err_ewm.score > 1"),
        &["8:15: rules[0].when: no detector named `err_ewm`; did you mean `err_ewma`?"],
    );
    for key in ["min_deviation", "min_relative_deviation"] {
        let report = errors(&config(&format!(", {key}: -0.5"), "err_ewma.score > 1"));
        assert!(report.contains(&format!("detectors.err_ewma.{key}: -0.5 is below 0")), "{report}");
    }
}

/// Guarantee: memory's edges are in order, and there are two.
#[test]
fn memory_has_two_edges() {
    check(
        "memory: {soft_bytes: 9, hard_bytes: 8}",
        &["1:10: memory.soft_bytes: 9 is above `hard_bytes`: 8; sources are held back first"],
    );
    check("memory: {soft_bytes: 9}", &["1:1: memory: `hard_bytes` is missing"]);
}

/// Guarantee: names of the admin port are names, as `Host` has them, without a port.
#[test]
fn admin_hosts_are_names() {
    let no_name = "is no host name or IP address: write it without a port";
    check(
        "admin_hosts: [\"relight.example:80\", ok, \"http://x\", \"\"]",
        &[
            &format!("1:15: admin_hosts[0]: `relight.example:80` {no_name}"),
            &format!("1:41: admin_hosts[2]: `http://x` {no_name}"),
            &format!("1:53: admin_hosts[3]: `` {no_name}"),
        ],
    );
}

/// Guarantee: a heartbeat goes by a responder that is there and changes nothing, and not more often than bins close.
#[test]
fn a_heartbeat_tells_somebody() {
    let head = "responders: {pager: {type: post, to: x, reach: notify}, deploy: {type: post, to: x, reach: mutate}}\nheartbeat: ";
    let cases = [
        ("{with: pagr}", "2:13: heartbeat.with: no responder named `pagr`; did you mean `pager`?"),
        ("{with: nobody}", "2:13: heartbeat.with: no responder named `nobody` (have: deploy, pager)"),
        (
            "{with: deploy}",
            "2:13: heartbeat.with: `deploy` is taken to change the world, and a heartbeat must not: give it `reach: notify`",
        ),
        (
            "{with: pager, every: 5s}",
            "2:26: heartbeat.every: 5s is shorter than a bin (10s), and a heartbeat says that one has closed",
        ),
        ("{every: 60s}", "2:1: heartbeat: `with` is missing"),
        ("{with: pager, evry: 60s}", "2:26: heartbeat.evry: unknown key; did you mean `every`?"),
    ];
    for (written, expected) in cases {
        check(&format!("{head}{written}\n"), &[expected]);
    }
    let config = parse("c.yaml", &format!("{head}{{with: pager}}\n"), &fake::REGISTRY, &|_| None);
    let heartbeat = config.expect("it is valid").daemon.heartbeat;
    assert_eq!(heartbeat, Some(("pager".to_owned(), relight_core::Span::from_secs(60))));
}

/// Guarantee: trouble is told by a responder that is there and changes nothing, whatever the mode, and no rule takes
/// its name.
#[test]
fn trouble_is_told_to_somebody() {
    let head = "mode: observe\nresponders: {pager: {type: post, to: x, reach: notify}, deploy: {type: post, to: x, reach: mutate}}\ntrouble: ";
    let cases = [
        ("{with: pagr}", "3:11: trouble.with: no responder named `pagr`; did you mean `pager`?"),
        (
            "{with: deploy}",
            "3:11: trouble.with: `deploy` is taken to change the world, and what tells of trouble must not: give it `reach: notify`",
        ),
        ("{with: pager, wth: pager}", "3:24: trouble.wth: unknown key; did you mean `with`?"),
    ];
    for (written, expected) in cases {
        check(&format!("{head}{written}\n"), &[expected]);
    }
    let config = parse("c.yaml", &format!("{head}{{with: pager}}\n"), &fake::REGISTRY, &|_| None);
    let step = config.expect("it is valid").settings.trouble.expect("it is named");
    assert_eq!((&*step.with, step.mutates, step.mode), ("pager", false, relight_core::rule::Mode::Auto));
}

/// Guarantee: a fleet limit that bounds nothing, or nothing that can be counted, is an error where it stands.
#[test]
fn fleet_limits() {
    let found = errors("fleet_limit: {actions: 0, within: 2d, share: 0%, minimum: 0, per: 1}");
    for expected in [
        "c.yaml:1:15: fleet_limit.actions: 0 is below 1",
        "fleet_limit.within: 2d is no window: longer than nothing, at most 1d",
        "fleet_limit.share: `0%` is no share: above 0% and at most 100%, such as 20%",
        "fleet_limit.minimum: 0 is below 1",
        "fleet_limit.per: unknown key",
        "5 errors; nothing was started",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    for share in ["20", "half", "101%", "-1%", "NaN%", "inf%", "%"] {
        let found = errors(&format!("fleet_limit: {{share: '{share}'}}"));
        assert!(found.contains("fleet_limit.share") && found.contains("such as 20%"), "{share}: {found}");
    }
    check("fleet_limit: on", &["1:1: fleet_limit: `on`: unknown word (have: off)"]);
    assert!(errors("fleet_limit: {within: 0s}").contains("fleet_limit.within: 0s is no window"));
}
