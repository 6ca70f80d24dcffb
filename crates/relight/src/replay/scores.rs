//! `--scores`: the rows of a table as they were written, each with its score.
//!
//! Of several detectors the largest score counts. An excursion alerts once: its first row keeps its
//! score and the rest stay below 1. A row that could not be read, or was refused, has the score 0. `-` stands
//! for standard output, of which a reader may go away.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use relight_core::text;
use relight_detectors::Emission;
use relight_ingest::{SampleRow, SampleRows};
use relight_runtime::ScoredRow;

use crate::failure::Failure;

/// Writes one row for each row of a table.
pub(super) struct Scores {
    path: PathBuf,
    rows: SampleRows,
    out: BufWriter<Box<dyn Write>>,
    emission: Emission,
    /// The rows up to this offset, exclusive, are written.
    written: u64,
    failed: Option<anyhow::Error>,
}

impl Scores {
    pub(super) fn create(capture: &Path, file: &Path) -> Result<Self, Failure> {
        let rows = relight_ingest::sample_rows(capture)?;
        let context = || format!("failed to write `{}`", text::path(file));
        let sink: Box<dyn Write> = if is_stdout(file) {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(file).with_context(context).map_err(Failure::Usage)?)
        };
        let mut out = BufWriter::new(sink);
        out.write_all(b"timestamp,value,anomaly_score\n").with_context(context)?;
        let emission = Emission::default();
        Ok(Self { path: file.to_owned(), rows, out, emission, written: 0, failed: None })
    }

    /// Takes the verdicts of one turn: all of one row.
    pub(super) fn take(&mut self, readings: &[ScoredRow]) {
        let judged = readings.iter().filter(|row| !row.value.is_nan());
        let Some(offset) = judged.clone().map(|row| row.offset).max() else {
            return;
        };
        if offset < self.written || self.failed.is_some() {
            return;
        }
        let score =
            judged.filter(|row| row.offset == offset).map(|row| row.reading.score).fold(0.0, f64::max);
        let score = self.emission.emit(score);
        self.failed = self.write_through(Some((offset, score))).err();
    }

    /// Writes the rows up to the one with this score, or all that are left.
    fn write_through(&mut self, scored: Option<(u64, f64)>) -> anyhow::Result<()> {
        while let Some(row) = self.rows.next_row()? {
            self.written = row.offset + 1;
            let is_scored = scored.is_some_and(|(offset, _)| row.offset >= offset);
            let score = scored.filter(|(offset, _)| row.offset == *offset).map_or(0.0, |(_, score)| score);
            self.write(&row, score)
                .with_context(|| format!("failed to write `{}`", text::path(&self.path)))?;
            if is_scored {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, row: &SampleRow, score: f64) -> io::Result<()> {
        writeln!(self.out, "{},{},{score}", field(&row.timestamp), field(&row.value))
    }

    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let failed = self.failed.take().map_or(Ok(()), Err);
        let written = failed.and_then(|()| self.write_through(None)).and_then(|()| {
            self.out.flush().with_context(|| format!("failed to write `{}`", text::path(&self.path)))
        });
        match written {
            Err(error) if !has_reader_gone(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Whether `--scores` names standard output.
pub(super) fn is_stdout(file: &Path) -> bool {
    file == Path::new("-")
}

/// `| head` is no failure.
fn has_reader_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A field, quoted if it must be. One that a spreadsheet would take for a formula, and that is no number, gets a single
/// quote before it, which makes it text there.
fn field(text: &str) -> Cow<'_, str> {
    let begins = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let is_formula = begins && text.trim().parse::<f64>().is_err();
    if !is_formula && !text.contains(['"', ',', '\r', '\n']) {
        return text.into();
    }
    let quote = if is_formula { "'" } else { "" };
    format!("\"{quote}{}\"", text.replace('"', "\"\"")).into()
}

#[cfg(test)]
mod tests {
    use relight_core::KeyGroup;
    use relight_core::Timestamp;
    use relight_core::detector::{Band, Reading};
    use relight_engine::directory::RowAddr;

    use super::*;

    /// Scenario: a table with a row that cannot be read, one without a verdict, and an excursion of three rows.
    /// Guarantee: one row for each row, written as it was, in order, with one alert for the excursion.
    #[test]
    fn one_row_for_each_row() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (table, file) = (folder.path().join("a.csv"), folder.path().join("scores.csv"));
        let rows = "timestamp,value\n2014-04-01 00:00:00,1.0\noops\n1396310400,2\n1396310401,9\n1396310402.50,8,x\n\n3,7\n4,6\n";
        std::fs::write(&table, rows).expect("it can be written");
        let mut scores = Scores::create(&table, &file).expect("a table");
        for (offset, score) in [(1, 0.25), (4, 3.0), (5, 2.0), (7, 2.5)] {
            let row = |score| ScoredRow {
                row: RowAddr { signal: 0, group: KeyGroup::nth(0), row: 0 },
                offset,
                at: Timestamp::from_secs(0),
                detector: 0,
                value: 1.0,
                reading: Reading::new(score, Band::UNKNOWN),
            };
            scores.take(&[row(0.1), row(score)]);
        }
        scores.finish().expect("it can be written");
        let written = std::fs::read_to_string(&file).expect("it is there");
        let expected = "timestamp,value,anomaly_score\n2014-04-01 00:00:00,1.0,0.25\noops,,0\n1396310400,2,0\n\
                        1396310401,9,3\n1396310402.50,8,0.99\n3,7,0.99\n4,6,0\n";
        assert_eq!(written, expected);
    }

    /// Guarantee: what a spreadsheet would run is text to it, what would end a line is within quotes, and numbers and times
    /// are as they were written.
    #[test]
    fn a_field_is_no_formula() {
        for plain in ["", "1.5", "-1.5", "+3e4", "-inf", "2014-04-01 00:00:00", "a=b", "x'y"] {
            assert_eq!(field(plain), plain);
        }
        for (text, quoted) in [
            ("=1+1", "\"'=1+1\""),
            ("=cmd|'/C calc'!A0", "\"'=cmd|'/C calc'!A0\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("+1+2", "\"'+1+2\""),
            ("-2+3", "\"'-2+3\""),
            ("\t=1", "\"'\t=1\""),
            ("a\rb", "\"a\rb\""),
            ("a\nb", "\"a\nb\""),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
        ] {
            assert_eq!(field(text), quoted, "{text:?}");
        }
    }
}
