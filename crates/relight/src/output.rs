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

/// Foreign text on one line: what could move a terminal's cursor, or turn a line around, is escaped; of what is longer than
/// `most` characters that is left out which comes after them.
pub(crate) fn visible(text: &str, most: usize) -> String {
    let turns = |c| matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let mut line = String::new();
    for c in text.chars().take(most) {
        if c.is_control() || turns(c) { line.extend(c.escape_debug()) } else { line.push(c) }
    }
    if text.chars().nth(most).is_some() { line + "..." } else { line }
}

/// Reads a file that the command line named.
pub(crate) fn read_text(path: &std::path::Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    text.with_context(|| format!("failed to read `{}`", path.display())).map_err(Failure::Usage)
}
