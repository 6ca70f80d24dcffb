//! Golden cases: a capture, a config, and what came of them, line for line.
//!
//! A case is a folder of `testdata/cases`: `README.md` with its scenario and its guarantee,
//! `input.ndjson`, `config.yaml` (left out: no config) and `expected.ndjson`. The whole loop runs, from
//! the decoder to the simulated responders. Nothing in an outcome depends on the machine: floats have
//! six digits, since platforms differ in the last ones of a logarithm.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use relight_config::{Config, Registry};
use relight_core::incident::{Action, Incident};
use relight_core::record::ControlRecord;
use relight_runtime::{ReplayRequest, Report, SimulatedOutcome, Totals};
use serde_json::{Map, Value, json};

use crate::repository;

/// The plug-ins that ship.
pub const REGISTRY: Registry =
    Registry { detectors: relight_detectors::ALL, responders: relight_responders::ALL };

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its folder's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
}

impl Case {
    /// All cases, by name.
    ///
    /// # Panics
    ///
    /// If `testdata/cases` cannot be listed.
    pub fn all() -> Vec<Self> {
        let folders = std::fs::read_dir(repository().join("testdata/cases")).expect("cases are in the tree");
        let mut cases: Vec<Self> = folders
            .map(|entry| entry.expect("a folder can be listed"))
            .map(|entry| Self {
                name: entry.file_name().to_string_lossy().into_owned(),
                folder: entry.path(),
            })
            .collect();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        cases
    }

    /// The text of one of its files; `None` if it has no such file.
    pub fn text(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(file)).ok()
    }

    /// Replays it: one JSON object a line.
    ///
    /// # Panics
    ///
    /// If the config has errors or the capture cannot be read: no case is about those.
    pub fn outcome(&self, threads: usize) -> String {
        let input = self.folder.join("input.ndjson");
        let name = &self.name;
        let request = ReplayRequest {
            settings: Arc::new(self.config().settings),
            sources: relight_ingest::open(&input).unwrap_or_else(|error| panic!("{name}: {error}")),
            threads,
            stores: None,
            snapshot_every: u64::MAX,
            outcomes: self.outcomes(),
            want_readings: false,
        };
        let report = relight_runtime::replay(request, &mut ()).unwrap_or_else(|e| panic!("{name}: {e}"));
        render(&report, &format!("{}/", self.folder.display()))
    }

    fn config(&self) -> Config {
        let Some(text) = self.text("config.yaml") else {
            return relight_config::defaults(&REGISTRY);
        };
        let config = relight_config::parse("config.yaml", &text, &REGISTRY, &|_| None);
        config.unwrap_or_else(|errors| panic!("{}: {errors}", self.name))
    }

    fn outcomes(&self) -> BTreeMap<String, SimulatedOutcome> {
        let recorded = relight_ingest::recorded_outcomes(&self.folder.join("input.ndjson"));
        let recorded = recorded.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let known = recorded.into_iter().filter_map(|record| match record {
            ControlRecord::Outcome { at, action, ok, detail } => {
                Some((action, SimulatedOutcome { at, ok, detail }))
            }
            _ => None,
        });
        known.collect()
    }
}

fn render(report: &Report, folder: &str) -> String {
    let mut lines = vec![json!({ "totals": totals(&report.totals) })];
    for incident in report.incidents.iter().filter(|incident| incident.detected.is_some()) {
        lines.push(json!({ "incident": describe(incident) }));
        lines.extend(incident.evidence.iter().map(|evidence| json!({ "evidence": evidence })));
        lines.extend(incident.timeline.iter().map(|moment| json!({ "moment": moment })));
    }
    lines.extend(report.actions.iter().map(|action| json!({ "action": plan(action) })));
    lines.extend(report.notices.iter().map(|notice| json!({ "notice": notice.replace(folder, "") })));
    let lines: Vec<String> = lines.into_iter().map(|line| rounded(line).to_string()).collect();
    lines.join("\n") + "\n"
}

fn totals(totals: &Totals) -> Value {
    let refused: Map<String, Value> =
        totals.refused.iter().map(|(reason, n)| (reason.name().to_owned(), json!(n))).collect();
    json!({
        "records": totals.records,
        "points": totals.points,
        "events": totals.events,
        "series": totals.series,
        "bins": totals.turns,
        "findings": totals.findings,
        "refused": refused,
    })
}

fn describe(incident: &Incident) -> Value {
    json!({
        "id": incident.id,
        "rule": incident.rule,
        "group": incident.group,
        "state": incident.state,
        "episode": incident.episode,
        "stale": incident.stale,
        "onset": incident.onset,
        "detected": incident.detected,
        "acted": incident.acted,
        "mitigated": incident.mitigated,
        "recovered": incident.recovered,
        "resolved": incident.resolved,
        "resolution": incident.resolution,
        "findings": incident.findings,
    })
}

fn plan(action: &Action) -> Value {
    json!({
        "id": action.id,
        "do": action.action,
        "with": action.with,
        "mutates": action.mutates,
        "state": action.state,
        "planned": action.planned,
        "started": action.started,
        "ended": action.ended,
        "detail": action.detail,
    })
}

/// The same with every float at six significant digits.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let exact = number.as_f64().unwrap_or_default();
            json!(format!("{exact:.5e}").parse::<f64>().unwrap_or(exact))
        }
        Value::Array(items) => items.into_iter().map(rounded).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, field)| (key, rounded(field))).collect(),
        other => other,
    }
}
