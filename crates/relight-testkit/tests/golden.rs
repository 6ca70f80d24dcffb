//! The golden cases of `testdata/cases`; `UPDATE=1` rewrites what they expect.

use relight_testkit::golden::Case;

/// Scenario and guarantee: those of the case's `README.md`.
#[test]
fn cases_come_out_as_expected() {
    let failures: Vec<String> = Case::all().iter().filter_map(check).collect();
    assert!(failures.is_empty(), "{}\n(UPDATE=1 rewrites what is expected)", failures.join("\n"));
}

/// Guarantee: whoever finds a case broken can read what it is about, and a case stays small enough to read.
#[test]
fn cases_say_what_they_guarantee() {
    for case in Case::all() {
        let readme = case.text("README.md").unwrap_or_default();
        for heading in ["# ", "**Scenario.** ", "**Guarantee.** "] {
            let found = readme.lines().any(|line| line.starts_with(heading));
            assert!(found, "{}: README.md has no line that starts with `{heading}`", case.name);
        }
        let size = std::fs::metadata(case.folder.join("input.ndjson")).map_or(0, |file| file.len());
        assert!((1..100_000).contains(&size), "{}: input.ndjson has {size} bytes", case.name);
    }
}

fn check(case: &Case) -> Option<String> {
    let outcome = case.outcome(1);
    assert_eq!(outcome, case.outcome(3), "{}: threads change the outcome", case.name);
    if is_update() {
        let written = std::fs::write(case.folder.join("expected.ndjson"), &outcome);
        written.expect("the tree can be written to when expectations are to be");
        return None;
    }
    let expected = case.text("expected.ndjson").unwrap_or_default();
    (outcome != expected).then(|| format!("{}:\n{}", case.name, difference(&expected, &outcome)))
}

/// Lines that are missing and lines that are new, in their order.
fn difference(expected: &str, outcome: &str) -> String {
    let only = |a: &str, b: &str, mark: &str| -> Vec<String> {
        let lines = a.lines().filter(|line| !b.lines().any(|other| other == *line));
        lines.map(|line| format!("  {mark} {line}")).collect()
    };
    [only(expected, outcome, "-"), only(outcome, expected, "+")].concat().join("\n")
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch, not an input of what it tests")]
fn is_update() -> bool {
    std::env::var("UPDATE").is_ok_and(|value| value == "1")
}
