//! From one config to another while relight runs: what cannot change, and what would start cold.
//!
//! Compares only. Both have been validated, so nothing is wrong with either.

use relight_core::rule::DetectorUse;
use relight_core::source::SourceSpec;

use crate::Config;

impl Config {
    /// Why a running relight cannot go over to `new`, all reasons at once; nothing if it can.
    pub fn refusals(&self, new: &Self) -> Vec<String> {
        let restart = "cannot change while running: restart";
        let mut refusals = Vec::new();
        if self.settings.binning != new.settings.binning {
            refusals.push(format!(
                "interval: {restart}, with another `state` (what was learned is of this length)"
            ));
        }
        if self.daemon.state != new.daemon.state {
            refusals.push(format!("state: {restart}"));
        }
        if self.daemon.admin != new.daemon.admin {
            refusals.push(format!("admin: {restart}"));
        }
        if self.daemon.admin_hosts != new.daemon.admin_hosts {
            refusals.push(format!("admin_hosts: {restart}"));
        }
        if self.daemon.memory != new.daemon.memory {
            refusals.push(format!("memory: {restart}"));
        }
        let mut sources: Vec<&String> = self.sources.iter().chain(&new.sources).map(|s| &s.name).collect();
        sources.extend(self.kafka.keys().chain(new.kafka.keys()));
        sources.sort_unstable();
        sources.dedup();
        let changed = sources.into_iter().filter(|name| !self.has_same_source(new, name));
        refusals.extend(changed.map(|name| format!("sources.{name}: a source {restart}")));
        refusals
    }

    /// Detectors of `new` whose rows would start cold, with the reason.
    pub fn cold(&self, new: &Self) -> Vec<String> {
        let cold = new.settings.detectors.iter().filter_map(|detector| {
            let before = self.settings.detectors.iter().find(|before| before.name == detector.name);
            let why = match before {
                None => "it is new",
                Some(before) if self.meaning(before) != new.meaning(detector) => "its signal has changed",
                Some(before) if before.state_version != detector.state_version => {
                    "its state has another version"
                }
                Some(before) if before.state_shape != detector.state_shape => {
                    "what shapes its state has changed"
                }
                Some(_) => return None,
            };
            Some(format!("detectors.{}: {why}", detector.name))
        });
        cold.collect()
    }

    fn meaning(&self, detector: &DetectorUse) -> (&str, String) {
        let signal = &self.settings.signals[detector.signal];
        (&signal.name, signal.meaning())
    }

    fn has_same_source(&self, new: &Self, name: &str) -> bool {
        let tokens = |config: &Self, source: &SourceSpec| {
            let (_, bearer) = source.kind.access();
            let each = bearer.iter().map(|name| config.secrets.get(name).map(|s| s.reveal().to_owned()));
            each.collect::<Vec<_>>()
        };
        let listener = |config: &Self| {
            let found = config.sources.iter().find(|source| source.name == name).cloned();
            found.map(|source| (tokens(config, &source), source))
        };
        listener(self) == listener(new) && self.kafka.get(name) == new.kafka.get(name)
    }
}
