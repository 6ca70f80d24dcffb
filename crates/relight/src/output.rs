//! The two streams out: results to standard output, all else to standard error.
//!
//! Colours are dropped unless it is a terminal that wants them (NO_COLOR, CLICOLOR and TERM decide).

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use anyhow::Context;

use crate::failure::Failure;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();

/// Prints a result. A reader that has gone away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Run(anyhow::Error::new(error).context("failed to write to standard output")))
        }
        _ => Ok(()),
    }
}

/// Says why a command failed. There is nobody to tell if that fails, too.
pub(crate) fn error(failure: &Failure) {
    let _ = writeln!(anstream::stderr(), "{RED}error{RED:#}: {failure}");
}

/// Says something that a person should know.
pub(crate) fn notice(text: &str) {
    let _ = writeln!(anstream::stderr(), "{YELLOW}note{YELLOW:#}: {text}");
}

/// Reads a file that the command line named.
pub(crate) fn read_text(path: &std::path::Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    text.with_context(|| format!("failed to read `{}`", path.display())).map_err(Failure::Usage)
}
