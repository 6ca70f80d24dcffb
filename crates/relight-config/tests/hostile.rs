//! Any bytes: an error with its line, or a config; never a panic.

mod fake;

use proptest::prelude::*;
use relight_config::parse;

const VALID: &str = "\
interval: 5s
signals:
  errs: {ratio: {of: 'e{code=~\"5..\"}', to: e}, by: [service, node], min_denominator: 5}
  up: &up {value: {of: up, aggregate: min}}
detectors:
  d: {type: ewma, signal: errs, half_life: 10m, direction: above}
responders:
  pager: {type: post, to: x}
rules:
  - name: r
    when: d.score > 1.0 && changed(\"deploy\", \"30m\") && group.service != \"x\"
    group_by: [service]
    respond:
      - {do: page, with: pager, args: {a: [1, 2.5, null]}, verify: {within: 5m, require: d.in_band}}
";

fn survives(text: &str) {
    let env = |name: &str| Some(name.to_owned());
    if let Err(errors) = parse("x.yaml", text, &fake::REGISTRY, &env) {
        assert!(errors.problems.iter().all(|problem| problem.line > 0 && problem.column > 0), "{errors}");
        assert!(errors.to_string().ends_with("nothing was started"), "{errors}");
    }
}

#[test]
fn the_unharmed_one_is_valid() {
    assert!(parse("x.yaml", VALID, &fake::REGISTRY, &|_| None).is_ok());
}

/// Guarantee: every prefix is handled, at every character.
#[test]
fn truncated_files_are_handled() {
    for end in (0..=VALID.len()).filter(|end| VALID.is_char_boundary(*end)) {
        survives(&VALID[..end]);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_yamlish_text_is_handled(text in "[ \n\t:,{}\\[\\]&*!|>'\"#%@`a-c0-2.$<?-]{0,80}") {
        survives(&text);
    }

    #[test]
    fn mutated_files_are_handled(
        edits in prop::collection::vec((0..VALID.len(), 0_usize..12, "[ \n:,{}\\[\\]&*'\"(a-z0-9.$!|<>=-]{0,4}"), 1..6),
    ) {
        let mut text = VALID.to_owned();
        for (at, cut, insert) in edits {
            let at = at.min(text.len());
            text.replace_range(at..(at + cut).min(text.len()), &insert);
        }
        survives(&text);
    }

    #[test]
    fn any_condition_is_handled(when in "[d.scorewgup \"()<>=!&|?:+*/%0-9\\[\\],-]{0,60}") {
        let quoted = when.replace('\'', "''");
        survives(&VALID.replace("d.score > 1.0", &format!("'{quoted}' #")));
    }
}
