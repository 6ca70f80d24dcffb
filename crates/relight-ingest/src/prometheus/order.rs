//! Puts a file that holds one series after the other into the order of time.
//!
//! `promtool tsdb dump` and its like write all samples of one series before those of the next, and a replay goes by time. So
//! such a file is read twice: once to find where time goes backwards, then from all these places at once, the earliest
//! sample first. Of equal times the order is the file's. Memory is bounded by the number of series, not by the file. A file
//! that cannot be read twice (standard input, a compressed one) is copied to a temporary file without a name.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use relight_core::Timestamp;

use crate::file::Bytes;
use crate::lines::MAX_LINE_BYTES;
use crate::scan::epoch;

/// Series that one file may hold one after the other: about 600 bytes each.
const MAX_RUNS: usize = 200_000;
/// Bytes that all runs together read ahead, and the least that one does.
const AHEAD_BYTES: usize = 64 << 20;
const LEAST_BYTES: usize = 512;
const MOST_BYTES: usize = 256 << 10;

/// Lines of a file that are in the order of time.
struct Run {
    /// What of the file is not read yet.
    at: u64,
    end: u64,
    /// What is read and not given yet.
    ahead: Vec<u8>,
    given: usize,
    /// Time of the line before.
    last: Timestamp,
}

/// The lines of a file in the order of time, as bytes.
struct Merged {
    file: File,
    runs: Vec<Run>,
    /// The next line of each run: its time and the run.
    next: BinaryHeap<Reverse<(Timestamp, usize)>>,
    ahead_bytes: usize,
    line: Vec<u8>,
    given: usize,
}

/// The lines of `bytes` in the order of time. `again` is the same file, if it can be read twice.
pub(crate) fn by_time(mut bytes: Bytes, again: Option<File>) -> io::Result<Bytes> {
    let mut file = if let Some(file) = again {
        file
    } else {
        let mut copy = nameless()?;
        io::copy(&mut bytes, &mut copy)?;
        copy.seek(SeekFrom::Start(0))?;
        copy
    };
    let runs = runs(&mut file)?;
    let ahead_bytes = (AHEAD_BYTES / runs.len().max(1)).clamp(LEAST_BYTES, MOST_BYTES);
    let count = runs.len();
    let mut merged = Merged { file, runs, next: BinaryHeap::new(), ahead_bytes, line: Vec::new(), given: 0 };
    for ix in 0..count {
        merged.queue(ix)?;
    }
    Ok(Box::new(merged))
}

/// A temporary file that is gone when it is closed.
fn nameless() -> io::Result<File> {
    let folder = std::env::temp_dir();
    for attempt in 0..100 {
        let path = folder.join(format!("relight-{}-{attempt}.tmp", std::process::id()));
        let mut how = OpenOptions::new();
        match how.read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no name is free for a temporary file"))
}

/// Where time goes backwards. A comment belongs to the sample that follows it.
fn runs(file: &mut File) -> io::Result<Vec<Run>> {
    let mut reader = BufReader::with_capacity(MOST_BYTES, file);
    let (mut runs, mut line): (Vec<Run>, _) = (Vec::new(), Vec::new());
    let (mut at, mut comments_from, mut last) = (0_u64, 0_u64, Timestamp::MIN);
    loop {
        line.clear();
        let n = reader.by_ref().take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)? as u64;
        if n == 0 {
            break;
        }
        if let Some(time) = time_of(&line) {
            if time < last || runs.is_empty() {
                if runs.len() == MAX_RUNS {
                    let why =
                        format!("more than {MAX_RUNS} series one after the other: sort it by time first");
                    return Err(io::Error::other(why));
                }
                if let Some(before) = runs.last_mut() {
                    before.end = comments_from;
                }
                let (ahead, last) = (Vec::new(), Timestamp::MIN);
                runs.push(Run { at: comments_from, end: u64::MAX, ahead, given: 0, last });
            }
            last = time;
            comments_from = at + n;
        }
        at += n;
    }
    if let Some(last) = runs.last_mut() {
        last.end = at;
    } else {
        runs.push(Run { at: 0, end: at, ahead: Vec::new(), given: 0, last: Timestamp::MIN });
    }
    Ok(runs)
}

/// The time of a sample: the last word of its line. Comments have none.
fn time_of(line: &[u8]) -> Option<Timestamp> {
    let line = line.trim_ascii();
    if line.first().is_none_or(|first| *first == b'#') {
        return None;
    }
    let start = line.iter().rposition(u8::is_ascii_whitespace)? + 1;
    epoch(&line[start..])
}

impl Run {
    /// The next line, with its end; empty at the end of the run.
    fn line(&mut self, file: &File, ahead_bytes: usize) -> io::Result<&[u8]> {
        loop {
            let ahead = &self.ahead[self.given..];
            let end = ahead.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let is_whole = self.at == self.end || ahead.len() > MAX_LINE_BYTES;
            if let Some(len) = end.or(is_whole.then_some(ahead.len())) {
                return Ok(&self.ahead[self.given..self.given + len]);
            }
            self.ahead.drain(..self.given);
            self.given = 0;
            // A line that is longer than what is read at once takes twice as much each time.
            let more = ahead_bytes.max(self.ahead.len()).min((self.end - self.at) as usize);
            let begin = self.ahead.len();
            self.ahead.resize(begin + more, 0);
            file.read_exact_at(&mut self.ahead[begin..], self.at)?;
            self.at += more as u64;
        }
    }
}

impl Merged {
    /// Puts a run's next line among those to choose from.
    fn queue(&mut self, ix: usize) -> io::Result<()> {
        let run = &mut self.runs[ix];
        let line = run.line(&self.file, self.ahead_bytes)?;
        if !line.is_empty() {
            let time = time_of(line).unwrap_or(run.last);
            self.next.push(Reverse((time, ix)));
        }
        Ok(())
    }

    /// Takes the earliest line; `false` at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(Reverse((time, ix))) = self.next.pop() else { return Ok(false) };
        let run = &mut self.runs[ix];
        let line = run.line(&self.file, self.ahead_bytes)?;
        self.line.clear();
        self.line.extend_from_slice(line);
        if self.line.last() != Some(&b'\n') {
            self.line.push(b'\n');
        }
        let len = line.len();
        run.given += len;
        run.last = time;
        self.given = 0;
        self.queue(ix)?;
        Ok(true)
    }
}

impl Read for Merged {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.given == self.line.len() && !self.advance()? {
            return Ok(0);
        }
        let left = &self.line[self.given..];
        let n = left.len().min(out.len());
        out[..n].copy_from_slice(&left[..n]);
        self.given += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ordered(text: &str, is_file: bool) -> String {
        let bytes: Bytes = Box::new(io::Cursor::new(text.to_owned().into_bytes()));
        let again = is_file.then(|| {
            let mut file = nameless().expect("a temporary file");
            io::Write::write_all(&mut file, text.as_bytes()).expect("it is written");
            file.seek(SeekFrom::Start(0)).expect("it goes back");
            file
        });
        let mut out = String::new();
        by_time(bytes, again).and_then(|mut read| read.read_to_string(&mut out)).expect("it is read");
        out
    }

    /// Guarantee: samples come by time, comments that begin a series before all of them, and nothing is lost.
    #[test]
    fn series_are_merged_by_time() {
        let text = "a 1 1000\na 2 2000\n# TYPE b gauge\nb 3 1000\nnonsense\nb 4 2000\nc 5 500";
        let expected = "# TYPE b gauge\nc 5 500\na 1 1000\nb 3 1000\nnonsense\na 2 2000\nb 4 2000\n";
        for is_file in [false, true] {
            assert_eq!(ordered(text, is_file), expected);
            assert_eq!(ordered("", is_file), "");
            assert_eq!(ordered("# EOF\n", is_file), "# EOF\n");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Scenario: series of any length one after the other, some with lines longer than what is read at once.
        /// Guarantee: what comes out is what a stable sort by time gives.
        #[test]
        fn the_order_is_a_stable_sort(series in prop::collection::vec((prop::collection::vec(0..50_i64, 1..40), 0..2_000_usize), 1..20)) {
            let mut lines = Vec::new();
            for (ix, (mut times, pad)) in series.into_iter().enumerate() {
                times.sort_unstable();
                lines.extend(times.iter().map(|at| (*at, format!("m{{i=\"{ix}{}\"}} 1 {at}\n", "x".repeat(pad)))));
            }
            let text: String = lines.iter().map(|(_, line)| line.as_str()).collect();
            lines.sort_by_key(|(at, _)| *at);
            let expected: String = lines.iter().map(|(_, line)| line.as_str()).collect();
            prop_assert_eq!(ordered(&text, true), expected);
        }
    }
}
