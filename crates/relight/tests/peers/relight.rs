//! One `relight run` in a folder of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use relight_core::incident::{Action, Incident};
use relight_store::StateDir;

use crate::http;
use crate::peer::{Peer, text};
use crate::{PATIENCE, until};

/// What every config here begins with: bins of a second, and nothing that waits for a minute.
const COMMON: &str = "
interval: 1s
allowed_lateness: 1s
snapshot_every: 1s
idle_after: 10m
catch_up: 0s
admin: 127.0.0.1:0
";

/// Where a relight lives.
pub(crate) struct Home {
    folder: PathBuf,
}

/// A relight that runs.
pub(crate) struct Relight {
    process: Peer,
    /// Where it listens, by what it says about that.
    addresses: BTreeMap<String, SocketAddr>,
}

impl Home {
    /// Writes its config: `keys` in place of what is common, and `rest`.
    pub(crate) fn new(folder: &Path, keys: &[(&str, &str)], rest: &str) -> Self {
        let mut config = COMMON.to_owned();
        for (key, value) in keys {
            let line = config.lines().find(|line| line.starts_with(&format!("{key}:"))).map(str::to_owned);
            let new = format!("{key}: {value}");
            config = line.map_or_else(|| format!("{config}{new}\n"), |line| config.replace(&line, &new));
        }
        Self::with_config(folder, &format!("{config}{rest}"))
    }

    /// The same with a config that is whole but for its state.
    pub(crate) fn with_config(folder: &Path, config: &str) -> Self {
        let home = Self { folder: folder.to_owned() };
        std::fs::write(folder.join("relight.yaml"), config).expect("a folder of our own");
        home
    }

    pub(crate) fn start(&self) -> Relight {
        let (config, state) = (self.folder.join("relight.yaml"), self.folder.join("state"));
        let args = ["run".into(), "-c".into(), config, "--state".into(), state];
        let said = self.folder.join("relight.said");
        let program = Path::new(env!("CARGO_BIN_EXE_relight"));
        let (process, lines) = Peer::telling(program, args, &said);
        let mut addresses = BTreeMap::new();
        while !addresses.contains_key("itself") {
            let line =
                lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it did not start: {}", text(&said)));
            if let Some((what, address)) = address(&line) {
                addresses.insert(what, address);
            }
        }
        Relight { process, addresses }
    }

    /// The incidents and actions that it left, once it has ended.
    pub(crate) fn left(&self) -> (Vec<Incident>, Vec<Action>) {
        let (_baselines, mut ledger) =
            StateDir::open(&self.folder.join("state")).expect("nobody else has it");
        let (kept, _) = ledger.load().expect("the ledger is whole");
        (kept.incidents, kept.actions)
    }

    pub(crate) fn incidents(&self) -> Vec<Incident> {
        self.left().0
    }
}

/// `  OTLP/HTTP, events  http://ADDRESS   (NAME)`: the first word (the name of the source, where there is none) and the address.
fn address(line: &str) -> Option<(String, SocketAddr)> {
    let at = line.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches("http://");
        word[..word.find('/').unwrap_or(word.len())].parse().ok()
    })?;
    let name = line.split(['(', ')']).nth(1).unwrap_or_default();
    let what = if line.contains("itself") {
        "itself".to_owned()
    } else if line.contains("OTLP/gRPC") {
        format!("{name}/grpc")
    } else {
        name.to_owned()
    };
    Some((what, at))
}

impl Relight {
    /// Where a source listens; `NAME/grpc` for OTLP by gRPC.
    pub(crate) fn at(&self, source: &str) -> SocketAddr {
        self.addresses[source]
    }

    /// The sum of a metric of its own over the series whose labels hold all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page =
            http::ask(self.at("itself"), "GET", "/metrics", "").map(|answer| answer.text).unwrap_or_default();
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let fits = rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label));
            rest.rsplit(' ').next().filter(|_| fits)?.parse::<f64>().ok()
        };
        page.lines().filter_map(of).sum()
    }

    /// Points taken in.
    pub(crate) fn points(&self) -> f64 {
        self.metric("relight_points_total", &[])
    }

    /// Requests of a source that ended so.
    pub(crate) fn requests(&self, source: &str, outcome: &str) -> f64 {
        let labels =
            [format!("source=\"{source}\""), "what=\"requests\"".into(), format!("kind=\"{outcome}\"")];
        self.metric("relight_source_total", &labels.each_ref().map(String::as_str))
    }

    /// What was refused, for whatever reason.
    pub(crate) fn refused(&self) -> f64 {
        self.metric("relight_refused_total", &[])
    }

    pub(crate) fn wait_for(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let page = || http::ask(self.at("itself"), "GET", "/metrics", "").map(|answer| answer.text);
        until(|| format!("{what}: {:?} {}", page(), self.process.said()), || holds(self));
    }

    pub(crate) fn stop(self) {
        let said = self.process.said();
        assert!(self.process.stop(), "{said}");
    }
}
