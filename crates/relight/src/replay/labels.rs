//! `--labels`: what known faults say about the incidents of a replay.
//!
//! An incident is about a fault if it opened or reopened from the fault's start until shortly after its
//! end, and agrees with it on every label that both have. One that was open before tells nobody of the
//! fault. The delay of a fault is from its start to the first alert of an incident about it. An incident
//! about no fault is a false alert.

use std::path::Path;

use relight_core::incident::Incident;
use relight_core::{Labels, Span, Timestamp, text};
use relight_runtime::Report;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// How long after its end a fault may be told of: as long as a stalled partition holds time back
/// (`max_skew`), which is also three bins of a 30 s scrape and a `for` of half a minute.
const GRACE: Span = Span::from_secs(120);

/// A line of a labels file.
const EXAMPLE: &str = r#"{"fault":"bad-deploy","start":"2026-11-23T19:43:48Z","end":"2026-11-23T19:46:20Z","labels":{"service":"shop"}}"#;

/// Bad lines of a labels file that are named.
const MAX_LISTED: usize = 5;

/// A known fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Fault {
    #[serde(rename = "fault")]
    pub(super) name: String,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    #[serde(default)]
    pub(super) labels: Labels,
}

/// What became of one fault.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Caught {
    pub(super) fault: Fault,
    /// The incident that told of it first, and how long that took.
    pub(super) by: Option<(String, Span)>,
}

/// What became of all of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Verdict {
    pub(super) faults: Vec<Caught>,
    /// Ids of incidents about no fault.
    pub(super) false_alerts: Vec<String>,
}

impl Verdict {
    pub(super) fn caught(&self) -> usize {
        self.faults.iter().filter(|caught| caught.by.is_some()).count()
    }

    /// The part of the faults that was caught; `None` if there were none.
    pub(super) fn recall(&self) -> Option<f64> {
        (!self.faults.is_empty()).then(|| self.caught() as f64 / self.faults.len() as f64)
    }

    /// How long each fault took to be told of, of those that were.
    pub(super) fn delays(&self) -> Vec<Span> {
        self.faults.iter().filter_map(|caught| Some(caught.by.as_ref()?.1)).collect()
    }
}

/// Reads a labels file: one fault a line, compressed as captures may be.
pub(super) fn read(path: &Path) -> Result<Vec<Fault>, Failure> {
    let written = relight_ingest::read_text(path)?;
    let (mut faults, mut bad) = (Vec::new(), Vec::new());
    for (number, line) in written.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match fault(line) {
            Ok(fault) => faults.push(fault),
            Err(why) => bad.push(format!("{}:{}: {why}", text::path(path), number + 1)),
        }
    }
    if bad.is_empty() {
        return Ok(faults);
    }
    let more = bad.len().saturating_sub(MAX_LISTED);
    bad.truncate(MAX_LISTED);
    if more > 0 {
        bad.push(format!("... and {more} more"));
    }
    bad.push(format!("a fault is a line of its own, such as {EXAMPLE}"));
    Err(Failure::usage(bad.join("\n")))
}

fn fault(line: &str) -> Result<Fault, String> {
    if !line.trim_start().starts_with('{') {
        return Err("not a JSON object".to_owned());
    }
    let fault: Fault = serde_json::from_str(line)
        .map_err(|error| error.to_string().replace("at line 1 column", "at column"))?;
    if fault.end < fault.start { Err("`end` is before `start`".to_owned()) } else { Ok(fault) }
}

/// Faults that nothing was recorded of: they are missed whatever the config says.
pub(super) fn outside<'a>(faults: &'a [Fault], report: &Report) -> Vec<&'a Fault> {
    let (first, last) = (report.totals.first, report.totals.last);
    faults.iter().filter(|fault| fault.end < first || fault.start > last).collect()
}

/// Holds incidents against faults.
pub(super) fn judge(faults: &[Fault], report: &Report) -> Verdict {
    let incidents: Vec<&Incident> = report.incidents.iter().filter(|i| i.detected.is_some()).collect();
    let about_none = |incident: &&&Incident| !faults.iter().any(|fault| alert(incident, fault).is_some());
    let false_alerts = incidents.iter().filter(about_none).map(|incident| incident.id.clone()).collect();
    let first = |fault: &Fault| {
        let alerts = incidents.iter().filter_map(|incident| {
            let delay = alert(incident, fault)?.since(fault.start);
            Some((incident.id.clone(), delay))
        });
        alerts.min_by_key(|(_, delay)| *delay)
    };
    let faults = faults.iter().map(|fault| Caught { by: first(fault), fault: fault.clone() }).collect();
    Verdict { faults, false_alerts }
}

/// When an incident first told of a fault; `None` if it is not about it.
fn alert(incident: &Incident, fault: &Fault) -> Option<Timestamp> {
    let agrees = |(key, value): (&str, &str)| incident.group.get(key).is_none_or(|ours| ours == value);
    let openings = incident.timeline.iter().filter(|moment| matches!(&*moment.what, "opened" | "reopened"));
    let told = openings.map(|moment| moment.at).chain(incident.detected);
    let during = fault.start..=fault.end.plus(GRACE);
    told.filter(|at| during.contains(at)).min().filter(|_| fault.labels.iter().all(agrees))
}
