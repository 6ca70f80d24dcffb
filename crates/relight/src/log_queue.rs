//! The output of a daemon: lines wait in a bounded queue for one thread that writes them.
//!
//! A pipe that is not read, or a terminal that was stopped, blocks that thread and no other. Lines that find no room are
//! dropped and counted, and the next line that is written says how many. Other commands write their output directly.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::output::{YELLOW, shown_lines};

/// Lines that may wait: a storm of 64 lines a minute, the most that incidents bring, for a quarter of an hour.
const MAX_LINES: usize = 1_024;
/// Bytes that may wait.
const MAX_BYTES: usize = 1 << 20;
/// How long the end of the process waits for its last lines.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Error,
}

enum Entry {
    Text(Stream, String),
    /// The receiver learns that all text before it was written.
    Flush(Sender<()>),
}

/// Writes to a stream, as `print` does: colours are dropped where they are not wanted.
type Sink = Box<dyn FnMut(Stream, &[u8]) -> io::Result<()> + Send>;

/// The queue; shared with its thread.
pub(crate) struct LogQueue {
    entries: Sender<Entry>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    /// Since the start.
    dropped: AtomicU64,
    /// Of those, how many no line has mentioned yet.
    unreported: AtomicU64,
}

static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// Queues all output of this process from now on, panic messages too: the default hook writes them from the thread that
/// panics, and a detector's panic is caught on the engine's.
pub(crate) fn start() -> io::Result<()> {
    let queue = LogQueue::start(Box::new(write_to_stream))?;
    if QUEUE.set(queue).is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            let has_one = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
            let backtrace = if has_one { format!("\n{backtrace}") } else { String::new() };
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("unnamed");
            let text = format!("thread `{name}` {panic}{backtrace}");
            put(Stream::Error, format!("{}\n", shown_lines(&text)));
            if name == "main" {
                flush();
            }
        }));
    }
    Ok(())
}

fn write_to_stream(stream: Stream, text: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Out => {
            let mut out = anstream::stdout().lock();
            out.write_all(text).and_then(|()| out.flush())
        }
        Stream::Error => anstream::stderr().write_all(text),
    }
}

/// Queues a text; writes it at once where no queue was started.
pub(crate) fn put(stream: Stream, text: String) {
    match QUEUE.get() {
        Some(queue) => queue.put(stream, text),
        // Where standard error is closed there is nobody to report that to.
        None => drop(write_to_stream(stream, text.as_bytes())),
    }
}

/// Whether output is queued.
pub(crate) fn is_queued() -> bool {
    QUEUE.get().is_some()
}

/// Lines that were dropped since the start.
pub(crate) fn dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.counts.dropped.load(Ordering::Relaxed))
}

/// Waits until all that was queued is written, for a second at most. To be called when the process ends.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_WITHIN);
    }
}

impl LogQueue {
    fn start(sink: Sink) -> io::Result<Self> {
        let (entries, queued) = bounded(MAX_LINES);
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let writer = std::thread::Builder::new().name("relight-log".to_owned());
        writer.spawn(move || write_all(&queued, &shared, sink))?;
        Ok(Self { entries, counts })
    }

    /// Never blocks.
    fn put(&self, stream: Stream, text: String) {
        let length = text.len();
        let waiting = self.counts.waiting_bytes.fetch_add(length, Ordering::AcqRel);
        // A single text may exceed the bound: it is whole or not at all.
        let fits = waiting == 0 || waiting + length <= MAX_BYTES;
        let sent = if fits {
            self.entries.try_send(Entry::Text(stream, text))
        } else {
            Err(TrySendError::Full(Entry::Text(stream, text)))
        };
        if sent.is_err() {
            self.counts.waiting_bytes.fetch_sub(length, Ordering::AcqRel);
            self.counts.drop_lines(1);
        }
    }

    /// Whether all was written in time.
    fn flush(&self, within: Duration) -> bool {
        let (written, is_written) = bounded(1);
        // The queue may be full; both waits together are at most twice the bound.
        let sent = self.entries.send_timeout(Entry::Flush(written), within);
        sent.is_ok() && is_written.recv_timeout(within).is_ok()
    }
}

impl Counts {
    fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.unreported.fetch_add(lines, Ordering::AcqRel);
    }

    /// The line that says how many were dropped, if any.
    fn report(&self) -> Option<String> {
        let lines = self.unreported.swap(0, Ordering::AcqRel);
        let are = if lines == 1 { "line was" } else { "lines were" };
        (lines > 0).then(|| {
            format!(
                "{YELLOW}note{YELLOW:#}: {lines} log {are} dropped: standard error was not read in time\n"
            )
        })
    }
}

fn write_all(queued: &Receiver<Entry>, counts: &Counts, mut sink: Sink) {
    for entry in queued {
        match entry {
            Entry::Text(stream, text) => {
                let written = sink(stream, text.as_bytes());
                counts.waiting_bytes.fetch_sub(text.len(), Ordering::AcqRel);
                // A stream that is closed loses its lines; so does a pipe that somebody made non-blocking.
                if written.is_err() {
                    counts.drop_lines(1);
                } else if let Some(report) = counts.report() {
                    let lost = sink(Stream::Error, report.as_bytes()).is_err();
                    counts.drop_lines(u64::from(lost));
                }
            }
            // A caller that has given up is not there.
            Entry::Flush(written) => drop(written.try_send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A queue, what it has written, and what lets each write go on.
    fn queue() -> (LogQueue, Arc<Mutex<Vec<u8>>>, Sender<()>) {
        let (go, goes) = bounded::<()>(MAX_LINES * 4);
        let written = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&written);
        let sink = move |_, text: &[u8]| {
            // Also over once the test lets go of it.
            let _ = goes.recv();
            kept.lock().expect("no panic").extend_from_slice(text);
            Ok(())
        };
        (LogQueue::start(Box::new(sink)).expect("a thread"), written, go)
    }

    /// Scenario: standard error is not read; far more lines come than the queue holds, then long ones; then it is read again.
    /// Guarantee: no line blocks, memory is bounded, the end of the process does not wait for ever, and once it is read again
    /// all lines that were kept come whole and in order, with the number of those that were not.
    #[test]
    fn a_stream_that_nobody_reads_blocks_nobody() {
        let (queue, written, go) = queue();
        let lines = MAX_LINES as u64 * 3;
        (0..lines).for_each(|line| queue.put(Stream::Error, format!("line {line}\n")));
        (0..100).for_each(|_| queue.put(Stream::Error, "x".repeat(MAX_BYTES / 8) + "\n"));
        let dropped = queue.counts.dropped.load(Ordering::Relaxed);
        assert!(dropped >= lines - MAX_LINES as u64 - 1 + 100, "{dropped}");
        assert!(queue.counts.waiting_bytes.load(Ordering::Relaxed) <= MAX_BYTES);
        assert!(!queue.flush(Duration::from_millis(1)), "nothing can be written");
        drop(go);
        assert!(queue.flush(Duration::from_mins(1)));
        let text = String::from_utf8(written.lock().expect("no panic").clone()).expect("text");
        let kept: Vec<&str> = text.lines().filter(|line| line.starts_with("line ")).collect();
        // The thread takes its first line when it gets to run: that may make room for one of the long ones.
        let long = text.lines().filter(|line| line.starts_with('x')).count();
        assert_eq!((kept.len() + long) as u64, lines + 100 - dropped, "{long} of the long ones");
        assert!(kept.iter().enumerate().all(|(i, line)| *line == format!("line {i}")), "{kept:?}");
        let plain = anstream::adapter::strip_str(&text).to_string();
        let report = format!("note: {dropped} log lines were dropped: standard error was not read in time");
        assert_eq!(plain.lines().filter(|line| *line == report).count(), 1, "{}", &plain[..400]);
        assert_eq!(queue.counts.waiting_bytes.load(Ordering::Relaxed), 0);
    }

    /// Guarantee: bytes are bounded, too, and a single text that exceeds the bound is written whole.
    #[test]
    fn bytes_are_bounded() {
        let (queue, written, go) = queue();
        queue.put(Stream::Error, "y".repeat(MAX_BYTES * 2));
        queue.put(Stream::Error, "z".to_owned());
        drop(go);
        assert!(queue.flush(Duration::from_mins(1)));
        let text = written.lock().expect("no panic").clone();
        assert!(text.starts_with(&vec![b'y'; MAX_BYTES * 2]) && !text.contains(&b'z'));
    }

    /// Scenario: a stream whose writes fail, and then do not.
    /// Guarantee: lines that were lost are counted and reported.
    #[test]
    fn a_write_that_fails_is_counted() {
        let (mut fails, written) = (3, Arc::new(Mutex::new(Vec::new())));
        let kept = Arc::clone(&written);
        let sink = move |_, text: &[u8]| {
            if fails > 0 {
                fails -= 1;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            kept.lock().expect("no panic").push(anstream::adapter::strip_bytes(text).into_vec());
            Ok(())
        };
        let queue = LogQueue::start(Box::new(sink)).expect("a thread");
        (0..5).for_each(|i| queue.put(Stream::Error, format!("{i}\n")));
        assert!(queue.flush(Duration::from_mins(1)));
        let text = String::from_utf8(written.lock().expect("no panic").concat()).expect("text");
        assert_eq!(text, "3\nnote: 3 log lines were dropped: standard error was not read in time\n4\n");
    }
}
