//! `relight check`, and reading a config for any command.

use std::path::Path;

use relight_config::Config;

use crate::REGISTRY;
use crate::failure::Failure;
use crate::output::{self, GREEN};

pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    let config = read(path)?;
    let settings = &config.settings;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let text = format!(
        "{GREEN}{}: fine{GREEN:#}: {}, {}, {}, {}\n",
        path.display(),
        count(settings.signals.len(), "signal"),
        count(settings.detectors.len(), "detector"),
        count(settings.rules.len(), "rule"),
        count(config.responders.len(), "responder"),
    );
    output::print(&text)
}

/// Reads a config; all that is wrong with it is one failure.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    let text = output::read_text(path)?;
    parse(&path.display().to_string(), &text)
}

/// The config of a run without one. Rows of a lone table are judged one by one.
pub(crate) fn without_file(is_samples: bool) -> Result<Config, Failure> {
    if is_samples { parse("defaults", "interval: sample\n") } else { Ok(relight_config::defaults(&REGISTRY)) }
}

fn parse(name: &str, text: &str) -> Result<Config, Failure> {
    relight_config::parse(name, text, &REGISTRY, &|variable| std::env::var(variable).ok())
        .map_err(|errors| Failure::usage(format_args!("the config has errors\n{errors}")))
}
