//! `relight replay`: captures through the whole loop, and what came of them.

pub(crate) mod expectation;
mod figures;
mod furthest;
mod human;
pub(crate) mod json;
mod labels;
mod notes;
mod progress;
mod scores;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use relight_config::Config;
use relight_core::incident::Evidence;
use relight_core::record::ControlRecord;
use relight_core::responder::{Plan, Request};
use relight_core::signal::Binning;
use relight_ingest::CaptureSource;
use relight_runtime::{History, ReplayRequest, Report, RuntimeError, SimulatedOutcome, Stores};
use relight_store::StateDir;

use self::figures::Figures;
use self::labels::Verdict;
use self::progress::Progress;
use self::scores::Scores;
use crate::cli::ReplayArgs;
use crate::failure::Failure;
use crate::{check, output};

/// What is shown: the report, and what was made of it.
struct Story<'a> {
    report: &'a Report,
    /// Of each action, by its id, what its responder would have done.
    plans: &'a BTreeMap<String, Plan>,
    /// What labels say about the incidents.
    verdict: Option<&'a Verdict>,
    /// What the rows were seeded with.
    seed: Option<&'a History>,
    /// The strongest finding of a few rows.
    furthest: &'a [Evidence],
}

pub(crate) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    // What can be known to be wrong is said before an hour is spent.
    let to_stdout = args.scores.as_deref().is_some_and(scores::is_stdout);
    if to_stdout && args.json {
        return Err(Failure::usage(
            "`--scores -` and --json would both write to standard output: name a file",
        ));
    }
    let faults = args.labels.as_deref().map(labels::read).transpose()?;
    expectation::check(&args.fail_if, faults.is_some())?;
    let sources = open(&args.captures)?;
    let earlier = open_earlier(&args.seed, &sources)?;
    let config = config(args, &sources)?;
    let scores = args.scores.as_deref().map(|file| open_scores(args, file, &sources, &config)).transpose()?;

    let mut progress = Progress::new(scores);
    let started = Instant::now();
    let request = request(args, &config, sources)?;
    let outcome = seeded(request, earlier, &mut progress);
    let elapsed = started.elapsed();
    let furthest = progress.finish()?;
    let (report, seed) = outcome?;

    let of_seed = seed.iter().flat_map(History::notices);
    of_seed.chain(&report.notices).chain(&notes::of(&report)).for_each(|notice| output::notice(notice));
    nothing_was_read(&report)?;
    if faults.is_some() && !report.times_known {
        let why =
            "--labels name times, and those of a file that is not in order of time are not known: sort it";
        return Err(Failure::Run(anyhow::anyhow!(why)));
    }
    if let Some(faults) = &faults {
        for note in notes::outside(&labels::outside(faults, &report)) {
            output::notice(&note);
        }
    }
    let verdict = faults.map(|faults| labels::judge(&faults, &report));
    let plans = plans(&report, &config);
    let furthest: Vec<Evidence> =
        furthest.iter().map(|finding| Evidence::of(finding, &config.settings)).collect();
    let story = Story {
        report: &report,
        plans: &plans,
        verdict: verdict.as_ref(),
        seed: seed.as_ref(),
        furthest: &furthest,
    };
    let run_time = (args.state.is_none() && args.seed.is_empty()).then_some(elapsed);
    if !to_stdout {
        output::print(&if args.json { json::render(&story)? } else { human::render(&story, run_time) })?;
    }
    expectation::judge(&args.fail_if, &Figures::of(&report, verdict.as_ref()))
}

/// A run that has read nothing is no quiet one: whoever asks for an exit code must hear of it.
fn nothing_was_read(report: &Report) -> Result<(), Failure> {
    let Report { totals, earlier, .. } = report;
    let lines = sum_refused(totals) - sum_refused(earlier);
    if totals.points > earlier.points || totals.events > earlier.events {
        return Ok(());
    }
    if lines > 0 {
        return Err(Failure::Run(anyhow::anyhow!(
            "nothing could be read: all {lines} lines were refused; the notes above say why (see `relight replay --help` for the formats)"
        )));
    }
    match totals.records {
        0 => Err(Failure::Run(anyhow::anyhow!("nothing could be read: there is no record in the captures"))),
        // What a state folder knows already is passed over.
        _ => Ok(()),
    }
}

fn sum_refused(totals: &relight_runtime::Totals) -> u64 {
    totals.refused.iter().map(|(_, n)| n).sum()
}

/// The replay and, before it, what its rows are seeded with.
fn seeded(
    request: ReplayRequest,
    earlier: Vec<Box<dyn CaptureSource>>,
    progress: &mut Progress,
) -> Result<(Report, Option<History>), Failure> {
    let mut seed = match earlier.len() {
        0 => None,
        _ => Some(History::read(&request.settings, earlier, request.threads, progress).map_err(failure)?),
    };
    if let Some(seed) = seed.as_ref().filter(|seed| seed.points() == 0) {
        seed.notices().iter().for_each(|notice| output::notice(notice));
        let why = "nothing could be read of --seed: there is no point in the earlier captures";
        return Err(Failure::Run(anyhow::anyhow!(why)));
    }
    let report = relight_runtime::replay_seeded(request, seed.as_mut(), progress).map_err(failure)?;
    Ok((report, seed))
}

fn failure(error: RuntimeError) -> Failure {
    match error {
        RuntimeError::Ingest(error) => Failure::from(error),
        RuntimeError::SeedTwice | RuntimeError::SeedNotEarlier { .. } => Failure::Usage(error.into()),
        error => Failure::Run(error.into()),
    }
}

/// What was recorded earlier. It must not be what is judged.
fn open_earlier(
    paths: &[PathBuf],
    sources: &[Box<dyn CaptureSource>],
) -> Result<Vec<Box<dyn CaptureSource>>, Failure> {
    let earlier = open(paths)?;
    for source in &earlier {
        if sources.iter().any(|judged| file_of(&**judged) == file_of(&**source)) {
            let name = &source.partitions()[0];
            return Err(Failure::usage(format_args!(
                "`{name}` is given both as --seed and as capture: what is judged must not be known before"
            )));
        }
    }
    Ok(earlier)
}

fn open(paths: &[PathBuf]) -> Result<Vec<Box<dyn CaptureSource>>, Failure> {
    let mut sources: Vec<Box<dyn CaptureSource>> = Vec::new();
    for path in paths {
        for source in relight_ingest::open(path)? {
            if sources.iter().any(|known| file_of(&**known) == file_of(&*source)) {
                let name = &source.partitions()[0];
                return Err(Failure::usage(format_args!("`{name}` is given twice: name each capture once")));
            }
            sources.push(source);
        }
    }
    Ok(sources)
}

/// The file behind a source, whatever it was called by. Standard input goes by its name.
fn file_of(source: &dyn CaptureSource) -> PathBuf {
    let name = PathBuf::from(&source.partitions()[0]);
    name.canonicalize().unwrap_or(name)
}

fn config(args: &ReplayArgs, sources: &[Box<dyn CaptureSource>]) -> Result<Config, Failure> {
    match &args.config {
        Some(path) => check::read(path),
        None => check::without_file(is_lone_table(sources)),
    }
}

fn is_lone_table(sources: &[Box<dyn CaptureSource>]) -> bool {
    matches!(sources, [source] if source.is_samples())
}

fn open_scores(
    args: &ReplayArgs,
    file: &Path,
    sources: &[Box<dyn CaptureSource>],
    config: &Config,
) -> Result<Scores, Failure> {
    let refuse = |why: &str| Err(Failure::usage(format_args!("--scores {why}")));
    if args.state.is_some() {
        return refuse("needs a run from the first row on: leave out --state");
    }
    if !is_lone_table(sources) {
        return refuse("needs exactly one capture, a `timestamp,value` CSV");
    }
    if config.settings.binning != Binning::Sample {
        return refuse("needs each row to be a bin of its own: put `interval: sample` into the config");
    }
    let [capture] = &args.captures[..] else {
        return refuse("needs exactly one capture");
    };
    if capture == Path::new("-") {
        return refuse("reads the capture twice: give a file instead of standard input");
    }
    if file.canonicalize().is_ok_and(|file| file == file_of(&*sources[0])) {
        return refuse("would overwrite the capture: name another file");
    }
    // A folder with a single table in it stands for that table.
    let name = Path::new(&sources[0].partitions()[0]).to_owned();
    Scores::create(if capture.is_dir() { &name } else { capture }, file)
}

fn request(
    args: &ReplayArgs,
    config: &Config,
    sources: Vec<Box<dyn CaptureSource>>,
) -> Result<ReplayRequest, Failure> {
    let stores = match &args.state {
        Some(path) => {
            let (baselines, ledger) = StateDir::open(path).map_err(|error| Failure::Run(error.into()))?;
            Some(Stores { baselines, ledger })
        }
        None => None,
    };
    // A single row has nothing to share out: workers would only wait for each other.
    let lone = is_lone_table(&sources);
    let cores = || if lone { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    Ok(ReplayRequest {
        settings: Arc::new(config.settings.clone()),
        sources,
        threads: args.threads.map_or_else(cores, usize::from),
        stores,
        snapshot_every: args.snapshot_every,
        outcomes: outcomes(args, config)?,
        want_readings: args.scores.is_some(),
    })
}

/// How actions ended in the captures. Only a config that acts has any.
fn outcomes(args: &ReplayArgs, config: &Config) -> Result<BTreeMap<String, SimulatedOutcome>, Failure> {
    let mut outcomes = BTreeMap::new();
    if config.settings.rules.iter().all(|rule| rule.respond.is_empty()) {
        return Ok(outcomes);
    }
    for path in &args.captures {
        for record in relight_ingest::recorded_outcomes(path)? {
            if let ControlRecord::Outcome { at, action, ok, detail } = record {
                outcomes.insert(action, SimulatedOutcome { at, ok, detail });
            }
        }
    }
    Ok(outcomes)
}

/// What the responders would have done. One that is not in the config any more, or sees no sense in
/// the request, has no plan.
fn plans(report: &Report, config: &Config) -> BTreeMap<String, Plan> {
    let plan = |action| {
        let action: &relight_core::incident::Action = action;
        let incident = report.incidents.iter().find(|incident| incident.id == action.incident)?;
        let responder = config.responders.get(&action.with)?;
        Some((action.id.clone(), responder.plan(&Request { action, incident }).ok()?))
    };
    report.actions.iter().filter_map(plan).collect()
}

#[cfg(test)]
mod tests;
