//! What a replay tells about itself when it is over: why there may be less in the result than was hoped for.

use relight_core::record::Reason;
use relight_engine::counters::Fall;
use relight_engine::detect::Warming;
use relight_engine::directory::{Unfit, Unmatched};
use relight_runtime::{Report, Totals};

use super::labels::Fault;
use crate::words::{count, grouped};

/// Characters of a selector that are shown.
const SHOWN_CHARS: usize = 120;

/// Faults outside the captures that are named.
const SHOWN_FAULTS: usize = 3;

/// Notes for people, each one line.
pub(super) fn of(report: &Report) -> Vec<String> {
    let mut notes: Vec<String> = earlier_runs(report).into_iter().collect();
    notes.extend(report.unmatched.iter().map(unmatched));
    notes.extend(report.warming.iter().map(warming));
    notes.extend(counter_falls(&report.totals));
    notes
}

/// What a state folder held before is shown as if it were of this run, so that has to be said.
fn earlier_runs(report: &Report) -> Option<String> {
    let Report { totals, earlier, .. } = report;
    if earlier.records == 0 {
        return None;
    }
    let late = refused(totals, Reason::Late) - refused(earlier, Reason::Late);
    if late > 0 {
        let all = count(late, "new point");
        return Some(format!(
            "{all} came too late: an earlier run of this state folder closed their bins when its captures \
             ended. Replay such captures in one command (into a new folder), or cut them between bins"
        ));
    }
    Some(match totals.records - earlier.records {
        0 => "0 new records: what is shown is from the earlier runs of this state folder, as their config \
              judged it"
            .to_owned(),
        _ => format!(
            "{} of {} are from the earlier runs of this state folder; what is shown of them is what the \
             config of those runs made of them",
            grouped(earlier.records),
            count(totals.records, "record"),
        ),
    })
}

/// Counters that fell without being reset. Resets alone are ordinary.
fn counter_falls(totals: &Totals) -> Option<String> {
    let of = |kind| totals.falls.iter().find(|(fall, _)| *fall == kind).map_or(0, |(_, n)| *n);
    let (corrections, unexplained) = (of(Fall::Correction), of(Fall::Unexplained));
    let parts = [
        (corrections, "by a little or with an unchanged start, taken as a correction"),
        (
            unexplained,
            "too far for a correction and not to about zero, counted once the next points had shown what it was",
        ),
    ];
    let parts = parts.iter().filter(|(n, _)| *n > 0);
    let parts: Vec<String> = parts.map(|(n, what)| format!("{} {what}", count(*n, "time"))).collect();
    (!parts.is_empty()).then(|| format!("counters fell {}; none of these is a reset", parts.join(", ")))
}

fn warming((detector, of): &(String, Warming)) -> String {
    let Warming { warming, rows, needs } = of;
    format!(
        "{} of {} still warming up at the end: `{detector}` finds nothing in a row before it has seen {needs} \
         values; --seed gives it earlier ones",
        grouped(*warming),
        count(*rows, "row")
    )
}

/// Faults that lie outside the captures.
pub(super) fn outside(faults: &[&Fault]) -> Vec<String> {
    let told = faults.iter().take(SHOWN_FAULTS).map(|fault| {
        let Fault { name, start, end, .. } = fault;
        format!("fault `{name}` ({start} to {end}) lies outside the captures, so it counts as missed")
    });
    let more = faults.len().saturating_sub(SHOWN_FAULTS);
    let rest = (more > 0).then(|| format!("and {more} more faults lie outside the captures"));
    told.chain(rest).collect()
}

fn refused(totals: &Totals, reason: Reason) -> u64 {
    totals.refused.iter().find(|(known, _)| *known == reason).map_or(0, |(_, n)| *n)
}

fn unmatched(unmatched: &Unmatched) -> String {
    let Unmatched { signal, part, wanted, unfit, have } = unmatched;
    let shown: String = wanted.chars().take(SHOWN_CHARS).collect();
    let have = || have.iter().map(String::as_str);
    if *part == "by" {
        let hint = match relight_config::nearest(wanted, have()) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        return format!("signal `{signal}`: no series of it has the label `{shown}` of `by`{hint}");
    }
    if let Some(unfit) = unfit {
        let why = match unfit {
            Unfit::Gauges => {
                "are gauges, which have no rate: send them as counters (in Prometheus text `# TYPE name counter`, in \
                 newline-delimited JSON `\"kind\":\"cumulative\"`), or watch them by `value:`"
            }
            Unfit::NoHistograms => "are no histograms, and only those have quantiles",
        };
        return format!("signal `{signal}`: no values, since all series of `{part}: {shown}` {why}");
    }
    let name = wanted.split('{').next().unwrap_or_default().trim();
    let hint = match relight_config::nearest(name, have()).filter(|_| !name.is_empty()) {
        Some(near) if near == name => format!(": there is a metric `{name}`, but with other labels"),
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::new(),
    };
    format!("signal `{signal}`: nothing matched `{part}: {shown}`{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: selectors and labels that met nothing, with a slip, with other labels, and with nothing near.
    /// Guarantee: the note names signal, key and selector, and the nearest name where one is near.
    #[test]
    fn what_met_nothing_is_told_with_the_nearest_name() {
        for (part, wanted, have, said) in [
            ("value", "http_request_total", "http_requests_total", "; did you mean `http_requests_total`?"),
            ("ratio.of", "up{code=\"5\"}", "up", ": there is a metric `up`, but with other labels"),
            ("value", "no_such_metric", "up", ""),
            ("rate", "{__name__=~\"a.*\"}", "up", ""),
            ("events", "deploy", "", ""),
        ] {
            let have: Vec<String> = have.split_whitespace().map(str::to_owned).collect();
            let note = unmatched(&Unmatched {
                signal: "s".to_owned(),
                part,
                wanted: wanted.to_owned(),
                unfit: None,
                have,
            });
            assert_eq!(note, format!("signal `s`: nothing matched `{part}: {wanted}`{said}"));
        }
        let (signal, wanted, have) = ("s".to_owned(), "svc".to_owned(), vec!["sv".to_owned()]);
        let note = unmatched(&Unmatched { signal, part: "by", wanted, unfit: None, have });
        assert_eq!(note, "signal `s`: no series of it has the label `svc` of `by`; did you mean `sv`?");
        let (signal, wanted, unfit) = ("s".to_owned(), "x_count".to_owned(), Some(Unfit::Gauges));
        let note = unmatched(&Unmatched { signal, part: "rate", wanted, unfit, have: Vec::new() });
        let said =
            "signal `s`: no values, since all series of `rate: x_count` are gauges, which have no rate: ";
        assert!(note.starts_with(said), "{note}");
    }
}
