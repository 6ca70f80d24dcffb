//! The command line: arguments in, an exit code out.
//!
//! Exit codes: 0 fine, 1 the run failed, 2 bad usage or config, 3 a `--fail-if` held. `clap`, `anyhow`
//! and exit codes live in this crate only; what is decided about a stream is decided elsewhere.

mod check;
mod cli;
mod explain;
mod failure;
mod health;
mod incidents;
mod log_queue;
mod output;
mod replay;
mod run;
mod steer;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use relight_config::Registry;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// The plug-ins that this binary has.
const REGISTRY: Registry =
    Registry { detectors: relight_detectors::ALL, responders: relight_responders::ALL };

fn main() -> ExitCode {
    let code = match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure);
            failure.exit_code()
        }
    };
    log_queue::flush();
    code
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Check { config, against } => check::run(&config, against.as_deref()),
        Command::Run(args) => run::run(&args),
        Command::Capture(args) => run::capture::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Pause { reason, at } => steer::pause(&reason.join(" "), &at),
        Command::Resume { at } => steer::resume(&at),
        Command::Incidents(args) => incidents::run(&args),
        Command::Ack { incident, at } => steer::ack(&incident, &at),
        Command::Approve { action, at } => steer::answer("approve", &action, &at),
        Command::Reject { action, at } => steer::answer("reject", &action, &at),
        Command::Reset { rule, at } => steer::reset(&rule, &at),
        Command::Health { admin } => health::run(admin),
        Command::Explain { name } => explain::run(name.as_deref()),
        Command::Schema => output::print(&format!("{:#}\n", relight_config::schema(&REGISTRY))),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "relight", &mut script);
            output::print(&String::from_utf8_lossy(&script))
        }
    }
}
