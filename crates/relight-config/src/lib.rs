//! YAML to validated settings: every error at once, each with file, line, column and key.
//!
//! A file is read in three steps: a tree of what is written, held against the schema that `relight schema`
//! publishes; the types that read it; the settings with all names resolved. Nothing is started here and no
//! connection is made; nothing is read but the text and the files that hold secrets. Those are read again at each use
//! of a responder, each time on a thread that lives as long as the read.
//! Detectors and responders are handed in as registries: this crate knows none of them.
#![warn(missing_docs)]

mod builtin;
mod change;
mod check;
mod condition;
mod errors;
mod fleet;
mod names;
mod raw;
mod report;
mod resolve;
mod rules;
mod schema;
mod secret_files;
mod selector;
mod sources;
mod tree;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use relight_core::Span;
use relight_core::detector::DetectorSpec;
use relight_core::responder::{AnyResponder, ResponderSpec, Secrets};
use relight_core::rule::{Mode, Settings};
use relight_core::source::SourceSpec;
use relight_core::source::kafka::Kafka;

pub use errors::{Errors, Problem, nearest};
pub use schema::schema;

/// The plug-ins that a config may name.
#[derive(Clone, Copy)]
pub struct Registry {
    /// Types of detectors; `adaptive` must be among them.
    pub detectors: &'static [DetectorSpec],
    /// Types of responders.
    pub responders: &'static [ResponderSpec],
}

/// A config, validated: nothing in it can fail any more.
#[derive(Clone)]
pub struct Config {
    /// What the engine has to know.
    pub settings: Settings,
    /// What is listened on.
    pub sources: Vec<SourceSpec>,
    /// Which Kafka topics are read, by the source's name.
    pub kafka: BTreeMap<String, Kafka>,
    /// Responders by name.
    pub responders: BTreeMap<String, Arc<dyn AnyResponder>>,
    /// What sources and responders name as their secrets.
    pub secrets: Secrets,
    /// How `relight run` goes about it.
    pub daemon: Daemon,
    /// How far relight may go. Each step's own mode has this in it already.
    pub mode: Mode,
}

/// What only a running daemon has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// The folder of its state.
    pub state: PathBuf,
    /// Time between two snapshots.
    pub snapshot_every: Span,
    /// A partition without records for this long is idle, if it is caught up.
    pub idle_after: Span,
    /// How long a listener's watermark stays after a start where the snapshot or its journal left it.
    pub catch_up: Span,
    /// After a cold start nothing is changed for so long.
    pub warm_up: Span,
    /// A sign of life, by which responder and how often.
    pub heartbeat: Option<(String, Span)>,
    /// Resident bytes at which sources are held back, and at which new series are refused as well. `None`: they
    /// follow from what the process may use.
    pub memory: Option<(u64, u64)>,
    /// Where it shows what it knows of itself.
    pub admin: Option<SocketAddr>,
    /// Names under which it may be asked for that, beside its own.
    pub admin_hosts: Vec<String>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Responders hold secrets: their names are all that is shown.
        f.debug_struct("Config")
            .field("mode", &self.mode)
            .field("sources", &self.sources)
            .field("signals", &self.settings.signals)
            .field("rules", &self.settings.rules)
            .field("responders", &self.responders.keys())
            .finish_non_exhaustive()
    }
}

/// Reads a config. `env` looks up the variables that `${VAR}` names.
pub fn parse(
    file_name: &str,
    text: &str,
    registry: &Registry,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Errors> {
    let mut report = report::Report::new(file_name);
    let mut root = match tree::Node::read(text) {
        Ok(root) => root,
        Err(problem) => {
            report.error_at((problem.line, problem.column), &problem.path, problem.message);
            return report.finish(None);
        }
    };
    if root.kind == tree::Kind::Null {
        // An empty file is a config with every default.
        root.kind = tree::Kind::Map(Vec::new());
    }
    report.survey(&mut root, env);
    let schema = schema::schema(registry);
    let cleaned = check::check(&schema, &root, &mut report);
    let config = cleaned.and_then(|file| resolve::resolve(file, registry, &mut report));
    report.finish(config)
}

/// No config at all: every series is a signal, `adaptive` judges it, and one rule makes incidents of it.
pub fn defaults(registry: &Registry) -> Config {
    parse("defaults", "", registry, &|_| None)
        .expect("an empty config is valid with `adaptive` in the registry")
}
