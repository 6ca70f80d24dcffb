//! The table of commands and flags: help and completions come from it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use relight_core::Span;

use crate::replay::expectation::Expectation;

/// Watches metric and event streams, learns what normal looks like, and says and does what brings a system back.
#[derive(Debug, Parser)]
#[command(name = "relight", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 fine, 1 the run failed or read nothing, 2 bad usage or config, 3 a --fail-if held."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Validates a config: every error at once, with file, line and column
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The config file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// The config file that a daemon runs with: says what a reload would start cold, or why it would be refused
        #[arg(long, value_name = "RUNNING")]
        against: Option<PathBuf>,
    },
    /// Watches live streams, until it is told to stop
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Records what the sources of a config bring, for `relight replay`; acts on nothing
    #[command(after_help = CAPTURE_HELP)]
    Capture(CaptureArgs),
    /// Runs the whole loop on recorded streams, as fast as it goes; nothing is touched
    #[command(after_help = REPLAY_HELP)]
    Replay(ReplayArgs),
    /// The kill switch: nothing is changed any more until `relight resume`; people are still told
    #[command(after_help = PAUSE_HELP)]
    Pause {
        /// Why, for the timeline of what is held back
        reason: Vec<String>,
        #[command(flatten)]
        at: StateArgs,
    },
    /// Lifts `relight pause`, and what else waits for a human: a lost ledger, a clock that jumped
    #[command(after_help = RESUME_HELP)]
    Resume {
        #[command(flatten)]
        at: StateArgs,
    },
    /// Lists the open incidents of a daemon, or tells all of one; and what keeps relight from acting
    #[command(after_help = INCIDENTS_HELP)]
    Incidents(IncidentsArgs),
    /// Acknowledges an incident: one whose data has stopped, or that waits for a human and is calm, is closed; else it goes on
    #[command(after_help = "Examples:\n  relight ack 01M84YZ97GNR95XBR1YBNZRYXS -c relight.yaml")]
    Ack {
        /// Its id
        incident: String,
        #[command(flatten)]
        at: StateArgs,
    },
    /// Approves an action that waits for it, with `mode: approve`; all other gates are asked again
    #[command(after_help = "Examples:\n  relight approve 01M84YZ97GNR95XBR1YBNZRYXS-1-0 -c relight.yaml")]
    Approve {
        /// Its id
        action: String,
        #[command(flatten)]
        at: StateArgs,
    },
    /// Rejects an action that waits for approval: the next step of its rule follows
    #[command(after_help = "Examples:\n  relight reject 01M84YZ97GNR95XBR1YBNZRYXS-1-0 -c relight.yaml")]
    Reject {
        /// Its id
        action: String,
        #[command(flatten)]
        at: StateArgs,
    },
    /// Sets the circuit breaker of a rule back, whose actions did not help
    #[command(after_help = "Examples:\n  relight reset bad-deploy -c relight.yaml")]
    Reset {
        /// The rule
        rule: String,
        #[command(flatten)]
        at: StateArgs,
    },
    /// Asks a daemon whether its engine moves
    #[command(
        after_help = "Examples:\n  relight health\n\nExits with 1 if nothing answers, or if the engine stands still."
    )]
    Health {
        /// Where the daemon shows `/healthz`: the `admin` of its config
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9777")]
        admin: SocketAddr,
    },
    /// Prints the page of a detector, responder or metric of relight; without a name, what there is
    #[command(
        after_help = "Examples:\n  relight explain\n  relight explain ewma\n  relight explain metrics\n  relight explain relight_bin_lag_seconds"
    )]
    Explain {
        /// A detector, a responder, one of relight's own metrics, or `metrics` for all of those
        name: Option<String>,
    },
    /// Prints the JSON Schema of the config, for editors
    #[command(after_help = "Examples:\n  relight schema > relight.schema.json")]
    Schema,
    /// Prints shell completions
    #[command(
        after_help = "Examples:\n  relight completions bash > ~/.local/share/bash-completion/completions/relight"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The config file; without one, OTLP is listened for on this machine, and nothing is done
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The folder of the state, instead of the config's `state`
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Threads of the engine; the result does not depend on it [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(crate) threads: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// The config file, for its sources; without one, OTLP is listened for on this machine
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The capture; compressed if its name ends in .gz or .zst
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Ends after so long, such as 10m; without it, when it is told to stop
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) duration: Option<Span>,
    /// Ends once the file is as large as that: at most some megabytes larger
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_bytes: Option<u64>,
    /// Replaces the file if it is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Which daemon: it is found by its state folder.
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// The config file of the daemon, for its `state`; without one, the default's
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The state folder itself: no config is read, so none can be wrong
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct IncidentsArgs {
    /// The id of one, to be told all of it
    pub(crate) incident: Option<String>,
    /// Those that are over, too
    #[arg(long, conflicts_with = "incident")]
    pub(crate) all: bool,
    /// Prints newline-delimited JSON, with the records of `relight replay --json`, `hold` and `breaker`
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) at: StateArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Files, folders, or `-` for standard input
    ///
    /// Newline-delimited JSON, OTLP JSON lines, Prometheus text with timestamps, or `timestamp,value`
    /// CSV; plain, gzip or zstd. A folder stands for its captures in name order.
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    /// The config file; without one, every series is watched and nothing is done
    ///
    /// Without one, an incident opens when three rows of a service (all, where it has fewer) leave their
    /// bands for three bins.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Goes on from what this folder holds, and leaves there what was learned
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Accepted points between two snapshots of --state
    ///
    /// A run that was killed goes on from the last one. A snapshot takes a second or less for a hundred
    /// thousand series, and a few for a million.
    #[arg(long, value_name = "POINTS", requires = "state", default_value_t = 2_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) snapshot_every: u64,
    /// Earlier captures, to know what is normal from the first bin on; may be repeated
    ///
    /// They are read first, and no rule sees them. Rows are found again by signal and labels, and `seasonal`
    /// and `adaptive` learn from what they were worth. A file, a folder or `-`, as CAPTURE is.
    #[arg(long, value_name = "EARLIER")]
    pub(crate) seed: Vec<PathBuf>,
    /// Threads of the engine; the result does not depend on it [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(crate) threads: Option<u16>,
    /// Known faults, to tell recall, delay and false alerts
    ///
    /// One a line: {"fault":"bad_deploy","start":"2026-11-23T08:10:00Z","end":"2026-11-23T08:15:00Z","labels":{"service":"checkout"}}
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// Writes `timestamp,value,anomaly_score`, a row for each row of a single CSV
    ///
    /// One alert an excursion: its first row keeps its score, the rows that go on with it are capped at
    /// 0.99, so that rows above 1 are alerts. `-` writes them to standard output, in place of the summary.
    #[arg(long, value_name = "FILE")]
    pub(crate) scores: Option<PathBuf>,
    /// Exits with 3 if this holds, such as `incidents > 0`; may be repeated
    #[arg(long, value_name = "EXPR")]
    pub(crate) fail_if: Vec<Expectation>,
    /// Prints newline-delimited JSON instead of a summary
    #[arg(long)]
    pub(crate) json: bool,
}

const CHECK_HELP: &str = "\
Examples:
  relight check -c shop.yaml
  relight check -c new.yaml --against shop.yaml";

const INCIDENTS_HELP: &str = "\
Examples:
  relight incidents -c relight.yaml
  relight incidents 01M84YZ97GNR95XBR1YBNZRYXS -c relight.yaml
  relight incidents --all --json --state /var/lib/relight";

const RUN_HELP: &str = "\
Examples:
  relight run
  relight run -c /etc/relight/relight.yaml --state /var/lib/relight

Signals: TERM and INT stop it within 30 s: what is queued is taken, and a last snapshot is
written. A second one stops it at once.";

const CAPTURE_HELP: &str = "\
Examples:
  relight capture -o morning.ndjson.zst
  relight capture -c relight.yaml -o incident.ndjson.gz --for 10m
  relight replay -c relight.yaml incident.ndjson.gz

It listens where the daemon does, so stop that one, or give another config. From Kafka it reads on from the group's offsets, or
`start`, and commits none. No responder, rule or state folder is used. TERM and INT end it with a whole file; a kill costs at
most the last second. Recorded are points, events and how silence moved time; not what was refused as unreadable, nor what
people said and responders answered, which the ledger of a daemon holds.";

const PAUSE_HELP: &str = "\
Examples:
  relight pause -c /etc/relight/relight.yaml
  relight pause --state /var/lib/relight storm in eu-1, we are on it

It holds over restarts. The command is left in the state folder, so it takes who may write there, and a daemon that does
not run finds it at its next start, before anything else. Exits with 1 if no daemon has taken it within 5 s.";

const RESUME_HELP: &str = "\
Examples:
  relight resume -c /etc/relight/relight.yaml
  relight resume --state /var/lib/relight

What runs out by itself, such as the warm-up after a cold start, is not lifted. `/readyz` and the metric `relight_held` say what
is held. Exits with 1 if no daemon has taken it within 5 s.";

const REPLAY_HELP: &str = "\
Examples:
  relight replay cpu.csv
  relight replay -c shop.yaml captures/ --labels faults.ndjson
  zstdcat day.ndjson.zst | relight replay -c shop.yaml - --json
  relight replay cpu.csv --scores cpu.scores.csv
  relight replay -c shop.yaml --seed last-week/ today.ndjson.zst
  relight replay -c shop.yaml week.ndjson --fail-if 'false_alerts > 2' --fail-if 'recall < 1'

--fail-if compares one figure with a number or a time, by <, <=, >, >=, == or !=:
  incidents, unresolved, escalated, actions, findings, refused, points, series;
  time_to_detect_p50, _p90, time_to_recover_p50, _p90 (over all incidents: `> 5m`);
  with --labels also recall, missed, false_alerts, delay_p50, delay_p90.
A figure that there is none of, such as the recovery time of no incident, fails nothing. Counts are compared
with numbers, times with times such as 90s or with seconds.

--json prints one object a line. `record` says which; times are RFC 3339, `_s` are seconds; what is absent,
unbounded (`lower`, `upper` of evidence) or, of a table in no order, not known (every time) is null:
  totals    partitions, records, points, events, series, rows, bins, findings, first, last, refused, counter_falls
  incident  id, rule, group, state, episode, stale, onset, detected, acted, mitigated, recovered,
            resolved, resolution, time_to_detect_s, time_to_recover_s, findings, worst_score,
            evidence, context (events: at, kind, labels, body), timeline
  action    id, incident, episode, rule, step, do, with, mutates, args, state, planned, started,
            ended, detail, plan
  rule      rule, resolved, by_verified_action, by_themselves, new_normal, closed, time_to_detect_s,
            time_to_act_s, time_to_recover_s, time_to_recover_by_themselves_s (each p50 and p90)
  labels    faults, caught, recall, false_alerts, delay_s; and a `fault` for each: fault, start,
            end, labels, incident, delay_s
With --state it tells all that the folder holds. It depends on the captures and the config alone.";
