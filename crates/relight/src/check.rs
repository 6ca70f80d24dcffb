//! `relight check`, and reading a config for any command.

use std::path::Path;

use relight_config::Config;
use relight_core::text;

use crate::REGISTRY;
use crate::failure::Failure;
use crate::output::{self, GREEN};

pub(crate) fn run(path: &Path, against: Option<&Path>) -> Result<(), Failure> {
    let config = read(path)?;
    if let Some(running) = against {
        compare(&read(running)?, &config)?;
    }
    let settings = &config.settings;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let text = format!(
        "{GREEN}{}: fine{GREEN:#}: {}, {}, {}, {}\n",
        text::path(path),
        count(settings.signals.len(), "signal"),
        count(settings.detectors.len(), "detector"),
        count(settings.rules.len(), "rule"),
        count(config.responders.len(), "responder"),
    );
    output::print(&text)
}

/// Says beforehand what a reload would come to.
fn compare(running: &Config, config: &Config) -> Result<(), Failure> {
    let refusals = running.refusals(config);
    if !refusals.is_empty() {
        return Err(Failure::usage(format_args!("a reload would be refused\n{}", refusals.join("\n"))));
    }
    let cold = running.cold(config);
    if cold.is_empty() {
        return output::print("a reload would keep all that was learned\n");
    }
    output::print(&format!("a reload would start rows cold\n{}\n", cold.join("\n")))
}

/// Reads a config; all that is wrong with it is one failure.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    let config = output::read_text(path)?;
    parse(&text::path(path), &config)
}

/// The config of a run without one. Rows of a lone table are judged one by one.
pub(crate) fn without_file(is_samples: bool) -> Result<Config, Failure> {
    if is_samples { parse("defaults", "interval: sample\n") } else { Ok(relight_config::defaults(&REGISTRY)) }
}

fn parse(name: &str, text: &str) -> Result<Config, Failure> {
    relight_config::parse(name, text, &REGISTRY, &|variable| std::env::var(variable).ok())
        .map_err(|errors| Failure::usage(format_args!("the config has errors\n{errors}")))
}
