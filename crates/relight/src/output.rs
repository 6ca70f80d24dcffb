//! The two streams out: results to standard output, all else to standard error.
//!
//! Text that reaches a terminal or a log is escaped here, so that no caller can forget it: only [`styled_notice`] and
//! [`print()`] take text with colours, whose foreign parts were escaped where it was composed. Colours are dropped unless it is a terminal that wants them (NO_COLOR, CLICOLOR and TERM decide).

use std::borrow::Cow;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use relight_core::text;

use crate::failure::Failure;
use crate::log_queue::{self, Stream};

pub(crate) use relight_core::text::shortened as visible;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();

/// Prints a result. A reader that has gone away (`| head`) is no failure. A daemon queues it, as it does its log.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    if log_queue::is_queued() {
        log_queue::put(Stream::Out, text.to_owned());
        return Ok(());
    }
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
    let text = failure.to_string();
    log_queue::put(Stream::Error, format!("{RED}error{RED:#}: {}\n", shown_lines(&text)));
}

/// Says something that a person should know, on one line.
pub(crate) fn notice(text: &str) {
    styled_notice(&text::one_line(text));
}

/// Says something with colours, whose foreign parts are escaped already.
pub(crate) fn styled_notice(line: &str) {
    log_queue::put(Stream::Error, format!("{YELLOW}note{YELLOW:#}: {line}\n"));
}

/// A text of several lines, such as the errors of a config, with everything else escaped.
pub(crate) fn shown_lines(text: &str) -> Cow<'_, str> {
    text::several_lines(text)
}

/// Reads a file that the command line named.
pub(crate) fn read_text(path: &std::path::Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    text.with_context(|| format!("failed to read `{}`", text::path(path))).map_err(Failure::Usage)
}
