//! What is written becomes what runs: names are resolved, plug-ins are made.
//!
//! Goes on after an error: a faulty entry is left out, but its name stays known, so that nothing is
//! reported twice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relight_core::Span;
use relight_core::detector::{ConfigError, Policy};
use relight_core::responder::{AnyResponder, Reach, Secret, Secrets};
use relight_core::rule::{DetectorUse, Limits, Mode, Settings, Step};
use relight_core::signal::{Aggregate, Binning, By, Selector, SignalInfo, SignalKind, SignalSpec};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::errors::{nearest, no_such};
use crate::fleet;
use crate::raw;
use crate::report::Report;
use crate::rules::{self, Surroundings};
use crate::schema::policy_keys;
use crate::secret_files::{self, Recipe, Renewed};
use crate::selector::selector;
use crate::sources::{Sources, sources};
use crate::{Config, Daemon, Registry, builtin};

/// The signal of a config that names none.
const EVERY_SERIES: &str = "every_series";
/// The detector of a config that names none.
const ADAPTIVE: &str = "adaptive";

/// A responder as rules see it.
pub(crate) struct Ready {
    pub(crate) mode: Mode,
    pub(crate) responder: Arc<dyn AnyResponder>,
}

impl Ready {
    pub(crate) fn mutates(&self) -> bool {
        self.responder.capabilities().reach == Reach::Mutate
    }
}

/// Resolves a file that was held against its schema.
pub(crate) fn resolve(file: Value, registry: &Registry, report: &mut Report) -> Option<Config> {
    let mut file: raw::File = read(file, "", report)?;
    let binning = binning(&file.interval, report);
    let signals = signals(file.signals.take(), report);
    let detectors = detectors(file.detectors.take(), &signals, binning, registry, report);
    let (secrets, shared) = secrets(&file.secrets, report);
    let responders = responders(&file.responders, (&secrets, &shared), registry, report);
    let sources = sources(file.sources.take(), &secrets, report);
    let mut daemon = daemon(&file, report);
    let beat = file.heartbeat.take().and_then(|entry| read::<raw::Heartbeat>(entry, "heartbeat", report));
    daemon.heartbeat = beat.map(|written| heartbeat(written, &responders, binning, report));
    let trouble = file.trouble.take().and_then(|entry| read::<raw::Trouble>(entry, "trouble", report));
    let trouble = trouble.and_then(|raw::Trouble { with }| trouble_step(with, &responders, report));
    let fleet_limit = fleet::limit(std::mem::take(&mut file.fleet_limit), report);
    let written = file.rules.take();
    let around =
        Surroundings { signals: &signals, detectors: &detectors, responders: &responders, mode: file.mode };
    let rules = written.map(|written| rules::rules(written, &around, report));

    let signals: Vec<SignalSpec> = signals.into_values().collect::<Option<_>>()?;
    let detectors: Vec<DetectorUse> = detectors.into_values().collect::<Option<_>>()?;
    let names: Vec<&str> = detectors.iter().map(|detector| detector.name.as_str()).collect();
    let mut rules = rules.unwrap_or_else(|| vec![builtin::rule(&names)]);
    if file.mode == Mode::Off {
        rules.clear();
    }
    let settings = Settings {
        binning,
        allowed_lateness: file.allowed_lateness,
        max_skew: file.max_skew,
        max_series: file.max_series,
        series_ttl: file.series_ttl,
        sources: sources.bounds(),
        fingerprint: fingerprint(binning, &signals, &detectors),
        signals,
        detectors,
        rules,
        trouble,
        fleet_limit,
    };
    let ready = responders.into_iter().filter_map(|(name, ready)| Some((name, ready?.responder)));
    let Sources { listeners, kafka } = sources;
    Some(Config {
        settings,
        sources: listeners,
        kafka,
        responders: ready.collect(),
        secrets,
        daemon,
        mode: file.mode,
    })
}

fn daemon(file: &raw::File, report: &mut Report) -> Daemon {
    for (key, span) in [("snapshot_every", file.snapshot_every), ("idle_after", file.idle_after)] {
        if span == Span::ZERO {
            report.error(key, "must be longer than nothing");
        }
    }
    Daemon {
        state: file.state.clone().into(),
        snapshot_every: file.snapshot_every,
        idle_after: file.idle_after,
        catch_up: file.catch_up,
        warm_up: file.warm_up,
        heartbeat: None,
        memory: memory(file.memory.clone(), report),
        admin: admin(&file.admin, report),
        admin_hosts: admin_hosts(&file.admin_hosts, report),
    }
}

fn memory(written: Option<Value>, report: &mut Report) -> Option<(u64, u64)> {
    let raw::Memory { soft_bytes, hard_bytes } = read(written?, "memory", report)?;
    if soft_bytes > hard_bytes {
        report.error(
            "memory.soft_bytes",
            format!("{soft_bytes} is above `hard_bytes`: {hard_bytes}; sources are held back first"),
        );
    }
    Some((soft_bytes, hard_bytes))
}

/// The responder of this name, which must be one that only tells somebody.
fn teller<'a>(
    with: &str,
    (path, what): (&str, &str),
    responders: &'a Named<Ready>,
    report: &mut Report,
) -> Option<&'a Ready> {
    match responders.get(with) {
        None => {
            let have = responders.keys().map(String::as_str);
            let message = match nearest(with, have.clone()) {
                Some(near) => format!("no responder named `{with}`; did you mean `{near}`?"),
                None => no_such("responder", with, have),
            };
            report.error(path, message);
            None
        }
        Some(Some(ready)) if ready.mutates() => {
            let message = format!(
                "`{with}` is taken to change the world, and {what} must not: give it `reach: notify`"
            );
            report.error(path, message);
            None
        }
        Some(ready) => ready.as_ref(),
    }
}

/// Told whatever the mode: it is asked for by itself, and pages fail open.
fn trouble_step(with: String, responders: &Named<Ready>, report: &mut Report) -> Option<Step> {
    let ready = teller(&with, ("trouble.with", "what tells of trouble"), responders, report)?;
    Some(Step {
        action: "page".to_owned(),
        effect: ready.responder.capabilities().effect,
        with,
        mutates: false,
        mode: Mode::Auto,
        args: Value::Object(Map::new()),
        limits: Limits::default(),
        verify: None,
    })
}

/// By a responder that tells somebody, and not more often than bins close.
fn heartbeat(
    written: raw::Heartbeat,
    responders: &Named<Ready>,
    binning: Binning,
    report: &mut Report,
) -> (String, Span) {
    let raw::Heartbeat { with, every } = written;
    teller(&with, ("heartbeat.with", "a heartbeat"), responders, report);
    let least = match binning {
        Binning::Interval(interval) => interval,
        Binning::Sample => Span::from_secs(1),
    };
    if every < least {
        report.error(
            "heartbeat.every",
            format!("{every} is shorter than a bin ({least}), and a heartbeat says that one has closed"),
        );
    }
    (with, every)
}

/// Its pages ask nobody who they are, so only this machine may read them.
fn admin(text: &str, report: &mut Report) -> Option<SocketAddr> {
    if text == "off" {
        return None;
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => return Some(address),
        Ok(address) => report.error(
            "admin",
            format!(
                "{address} can be reached from other machines, and these pages ask nobody who they are: listen on \
                 127.0.0.1:{} and let a proxy with authentication pass it on",
                address.port()
            ),
        ),
        Err(_) => report.error("admin", format!("`{text}` is no `ADDRESS:PORT`, such as 127.0.0.1:9777, nor `off`")),
    }
    None
}

/// Names as a `Host` header has them, without a port.
fn admin_hosts(names: &[String], report: &mut Report) -> Vec<String> {
    for (i, name) in names.iter().enumerate() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.parse::<std::net::IpAddr>().is_err() && (name.is_empty() || !name.chars().all(is_name)) {
            report.error(
                &format!("admin_hosts[{i}]"),
                format!("`{name}` is no host name or IP address: write it without a port"),
            );
        }
    }
    names.to_vec()
}

/// Reads an entry. What the schema could not tell is reported here; what it told already is not.
pub(crate) fn read<T: DeserializeOwned>(value: Value, path: &str, report: &mut Report) -> Option<T> {
    match serde_json::from_value(value) {
        Ok(entry) => Some(entry),
        Err(_) if report.spoils(path) => None,
        Err(error) => {
            report.error(path, error.to_string());
            None
        }
    }
}

fn binning(text: &str, report: &mut Report) -> Binning {
    if text == "sample" {
        return Binning::Sample;
    }
    match text.parse::<Span>() {
        Ok(interval) if interval > Span::ZERO => return Binning::Interval(interval),
        Ok(_) => report.error("interval", "must be longer than nothing"),
        Err(error) => report.error("interval", format!("{error}, or `sample`")),
    }
    Binning::Interval(Span::from_secs(10))
}

type Named<T> = BTreeMap<String, Option<T>>;

fn signals(written: Option<BTreeMap<String, Value>>, report: &mut Report) -> Named<SignalSpec> {
    let Some(written) = written else {
        let every = SignalSpec { name: EVERY_SERIES.to_owned(), kind: SignalKind::EverySeries, by: By::All };
        return BTreeMap::from([(EVERY_SERIES.to_owned(), Some(every))]);
    };
    let each = written.into_iter().map(|(name, entry)| {
        let path = format!("signals.{name}");
        let raw: Option<raw::Signal> = read(entry, &path, report);
        let signal = raw.and_then(|raw| signal(&name, raw, &path, report));
        (name, signal)
    });
    each.collect()
}

fn signal(name: &str, raw: raw::Signal, path: &str, report: &mut Report) -> Option<SignalSpec> {
    if raw.min_denominator.is_some() && raw.ratio.is_none() {
        report.error(&format!("{path}.min_denominator"), "only a `ratio` has a denominator");
    }
    let every = raw.every_series == Some(true);
    if every && raw.by.is_some() {
        report.error(&format!("{path}.by"), "`every_series` has every label of its series");
    }
    if raw.missing_of.is_some() && raw.ratio.is_none() {
        report.error(&format!("{path}.missing_of"), "only a `ratio` has an `of` and a `to`");
    }
    let mut select = |key: &str, text: &str| -> Option<Selector> {
        selector(text).map_err(|message| report.error(&format!("{path}.{key}"), message)).ok()
    };
    let least = raw.min_denominator.unwrap_or(0.0);
    let kinds = [
        raw.value.map(|raw::OrText(g)| {
            select("value", &g.of).map(|of| SignalKind::Value { of, aggregate: aggregate(g.aggregate) })
        }),
        raw.rate.map(|raw::OrText(s)| select("rate", &s.of).map(|of| SignalKind::Rate { of })),
        raw.ratio.map(|ratio| {
            let (of, to) = (select("ratio.of", &ratio.of), select("ratio.to", &ratio.to));
            let missing_is_zero = raw.missing_of.unwrap_or_default() == raw::MissingOf::Zero;
            Some(SignalKind::Ratio { of: of?, to: to?, min_denominator: least, missing_is_zero })
        }),
        raw.quantile
            .map(|part| select("quantile.of", &part.of).map(|of| SignalKind::Quantile { of, q: part.q })),
        raw.events.map(|raw::OrText(s)| select("events", &s.of).map(|of| SignalKind::EventCount { of })),
        every.then_some(Some(SignalKind::EverySeries)),
    ];
    let mut given = kinds.into_iter().flatten();
    let (first, more) = (given.next(), given.next().is_some());
    if more || first.is_none() && !report.spoils(path) {
        let message = "needs exactly one of value, rate, ratio, quantile, events, every_series";
        report.error(path, message);
    }
    let by = raw.by.map_or(By::All, By::Labels);
    Some(SignalSpec { name: name.to_owned(), kind: first??, by })
}

const fn aggregate(raw: raw::Aggregate) -> Aggregate {
    match raw {
        raw::Aggregate::Mean => Aggregate::Mean,
        raw::Aggregate::Sum => Aggregate::Sum,
        raw::Aggregate::Min => Aggregate::Min,
        raw::Aggregate::Max => Aggregate::Max,
    }
}

fn detectors(
    written: Option<BTreeMap<String, Value>>,
    signals: &Named<SignalSpec>,
    binning: Binning,
    registry: &Registry,
    report: &mut Report,
) -> Named<DetectorUse> {
    let written = written.unwrap_or_else(|| {
        let each = signals.keys().map(|signal| {
            let entry = Value::Object(Map::from_iter([
                ("type".to_owned(), ADAPTIVE.into()),
                ("signal".to_owned(), signal.as_str().into()),
            ]));
            // A lone `adaptive` has its own name; several are told apart by their signals.
            (if signal == EVERY_SERIES { ADAPTIVE } else { signal }.to_owned(), entry)
        });
        each.collect()
    });
    let interval = match binning {
        Binning::Interval(interval) => interval,
        Binning::Sample => Span::from_secs(1),
    };
    let each = written.into_iter().map(|(name, entry)| {
        let path = format!("detectors.{name}");
        if !is_identifier(&name) {
            report.error(
                &path,
                "rules call it by this name: letters, digits and `_`, not beginning with a digit",
            );
        }
        let detector = detector(&name, entry, signals, interval, registry, &path, report);
        (name, detector)
    });
    each.collect()
}

fn detector(
    name: &str,
    entry: Value,
    signals: &Named<SignalSpec>,
    interval: Span,
    registry: &Registry,
    path: &str,
    report: &mut Report,
) -> Option<DetectorUse> {
    let Value::Object(mut own) = entry else {
        return None;
    };
    let kind = own.remove("type")?;
    let spec = registry.detectors.iter().find(|spec| kind == spec.name)?;
    let signal_name = own.remove("signal")?.as_str()?.to_owned();
    let Some((signal, (_, watched))) =
        signals.iter().enumerate().find(|(_, (known, _))| **known == signal_name)
    else {
        let have = signals.keys().map(String::as_str);
        report.error(&format!("{path}.signal"), no_such("signal", &signal_name, have));
        return None;
    };
    let shared = policy_keys().into_iter().filter_map(|key| own.remove_entry(&key)).collect();
    let policy: Policy = read(Value::Object(shared), path, report)?;
    let mut parameters = (spec.defaults)();
    for (key, value) in own {
        parameters[key] = value;
    }
    let info = SignalInfo { name: signal_name, interval };
    let source =
        (spec.build)(&parameters, &policy, &info).map_err(|error| refuse(&error, path, report)).ok()?;
    Some(DetectorUse {
        name: name.to_owned(),
        kind: spec.name,
        state_version: spec.state_version,
        // What it learned is worth nothing to another type, nor of another signal by the same name.
        state_shape: format!(
            "{} {} of {}",
            spec.name,
            (spec.state_shape)(&parameters),
            watched.as_ref().map(SignalSpec::meaning)?
        ),
        signal,
        source,
    })
}

fn responders(
    written: &BTreeMap<String, Value>,
    secrets: (&Secrets, &[(String, PathBuf)]),
    registry: &Registry,
    report: &mut Report,
) -> Named<Ready> {
    let mut each = BTreeMap::new();
    for (name, entry) in written {
        let path = format!("responders.{name}");
        each.insert(name.clone(), responder(entry, secrets, registry, &path, report));
    }
    each
}

fn responder(
    entry: &Value,
    (secrets, shared): (&Secrets, &[(String, PathBuf)]),
    registry: &Registry,
    path: &str,
    report: &mut Report,
) -> Option<Ready> {
    let mut settings = entry.as_object()?.clone();
    let kind = settings.remove("type")?;
    let spec = registry.responders.iter().find(|spec| kind == spec.name)?;
    let head = Value::Object(settings.remove_entry("mode").into_iter().collect());
    let head: raw::ResponderHead = read(head, path, report)?;
    let own = secret_files::references(&mut settings, &(spec.schema)(), path, report);
    let (secrets, shared) = (secrets.clone(), shared.to_vec());
    let recipe = Recipe { spec: *spec, settings, own, secrets, shared };
    match (spec.build)(&Value::Object(recipe.fill(path, report)?), &recipe.secrets) {
        Ok(responder) if recipe.own.is_empty() && recipe.shared.is_empty() => {
            Some(Ready { mode: head.mode, responder })
        }
        Ok(responder) => {
            Some(Ready { mode: head.mode, responder: Arc::new(Renewed::new(recipe, responder)) })
        }
        Err(error) => {
            refuse(&error, path, report);
            None
        }
    }
}

/// A plug-in does not like its section. If the schema did not either, that has been said already.
fn refuse(error: &ConfigError, path: &str, report: &mut Report) {
    let path = if error.path.is_empty() { path.to_owned() } else { format!("{path}.{}", error.path) };
    if !report.spoils(&path) {
        report.error(&path, error.message.clone());
    }
}

/// Secrets as they are given, or from the files that hold them, and which do.
fn secrets(written: &BTreeMap<String, Value>, report: &mut Report) -> (Secrets, Vec<(String, PathBuf)>) {
    let (mut secrets, mut files) = (Vec::new(), Vec::new());
    for (name, value) in written.iter().filter_map(|(name, value)| Some((name, value.as_str()?))) {
        let Some(short) = name.strip_suffix(secret_files::END) else {
            secrets.push((name.clone(), Secret::new(value)));
            continue;
        };
        match secret_files::read(Path::new(value)) {
            Ok(secret) => {
                secrets.push((short.to_owned(), secret));
                files.push((short.to_owned(), PathBuf::from(value)));
            }
            Err(why) => report.error(&format!("secrets.{name}"), why),
        }
    }
    (Secrets::new(secrets), files)
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    // CEL's own words, and the two of ours.
    let taken = ["true", "false", "null", "in", "group", "changed"].contains(&name);
    first && !taken && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What state depends on, as text: one line each, in the order of names.
fn fingerprint(binning: Binning, signals: &[SignalSpec], detectors: &[DetectorUse]) -> Vec<u8> {
    let mut text = match binning {
        Binning::Interval(interval) => format!("interval {interval}\n"),
        Binning::Sample => "interval sample\n".to_owned(),
    };
    for signal in signals {
        writeln!(text, "signal {:?} {}", signal.name, signal.meaning()).expect("a String takes any text");
    }
    for detector in detectors {
        let DetectorUse { name, kind, state_version, state_shape, signal, .. } = detector;
        writeln!(text, "detector {name} {kind} {state_version} {:?} {state_shape:?}", signals[*signal].name)
            .expect("a String takes any text");
    }
    text.into_bytes()
}
