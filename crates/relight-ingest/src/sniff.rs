//! Tells the format of a capture by what it holds; by its name only where the content leaves it open.

use std::ffi::OsStr;
use std::io::{self, Cursor, Read};
use std::path::Path;

use crate::csv::{Csv, Layout};
use crate::error::IngestError;
use crate::file::{self, Bytes};
use crate::lines::{BOM, Cut, Lines, MAX_LINE_BYTES};
use crate::ndjson::Ndjson;
use crate::otlp::Otlp;
use crate::otlp::messages::Messages;
use crate::prometheus::{Prometheus, order};
use crate::source::Decoder;

/// The format is told from this much of a file, decompressed.
const HEAD_BYTES: u64 = 64 << 10;
const EXTENSIONS: [&str; 6] = ["ndjson", "jsonl", "json", "csv", "prom", "txt"];
const OTLP_KEYS: [&str; 3] = ["\"resourceMetrics\"", "\"resourceLogs\"", "\"resourceSpans\""];
const CONFIG_KEYS: [&str; 5] = ["signals:", "detectors:", "rules:", "responders:", "engine:"];

/// Lines behind the first from which a table's columns are told.
const TABLE_ROWS: usize = 20;

enum Format {
    Ndjson,
    Otlp,
    Messages(Cut),
    Prometheus,
    /// Prometheus text with one series after the other.
    Series,
    Csv(Layout),
}

/// Whether a file of a folder is taken for a capture.
pub(crate) fn named_like_a_capture(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    !hidden && path.is_file() && EXTENSIONS.contains(&extension(path).as_str())
}

/// The extension in lower case, beneath `.gz` or `.zst`.
fn extension(path: &Path) -> String {
    let of = |path: &Path| path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    match of(path).as_str() {
        "gz" | "zst" | "zstd" => of(Path::new(path.file_stem().unwrap_or_default())),
        other => other.to_owned(),
    }
}

/// The decoder for these bytes, and the bytes again from their start, cut into what it decodes.
pub(crate) fn decoder(path: &Path, bytes: Bytes) -> Result<(Box<dyn Decoder>, Lines), IngestError> {
    let (head, bytes) = peek(path, bytes)?;
    let decoder: Box<dyn Decoder> = match format(path, &head)? {
        Format::Ndjson => Box::new(Ndjson::new()),
        Format::Otlp => Box::new(Otlp::new()),
        Format::Messages(cut) => return Ok((Box::new(Messages::new()), Lines::cut(bytes, cut))),
        Format::Prometheus => Box::new(Prometheus::new()),
        Format::Series => {
            let sorted = file::again(path).and_then(|again| order::by_time(bytes, again));
            let failed = |source| IngestError::Read { path: path.to_owned(), line: 0, source };
            return Ok((Box::new(Prometheus::of_series()), Lines::new(sorted.map_err(failed)?)));
        }
        Format::Csv(layout) => Box::new(Csv::new(layout, &series_name(path))),
    };
    Ok((decoder, Lines::new(bytes)))
}

/// The layout of a table, and its bytes again from their start.
pub(crate) fn layout(path: &Path, bytes: Bytes) -> Result<(Layout, Bytes), IngestError> {
    let (head, bytes) = peek(path, bytes)?;
    match format(path, &head)? {
        Format::Csv(layout) => Ok((layout, bytes)),
        _ => Err(IngestError::NotSamples { path: path.to_owned() }),
    }
}

fn peek(path: &Path, mut bytes: Bytes) -> Result<(Vec<u8>, Bytes), IngestError> {
    let mut head = Vec::new();
    let rest: Bytes = match bytes.by_ref().take(HEAD_BYTES).read_to_end(&mut head) {
        Ok(_) => bytes,
        Err(source) if head.is_empty() => {
            return Err(IngestError::Read { path: path.to_owned(), line: 0, source });
        }
        // What could be read is whole: the error is met again behind it.
        Err(error) => Box::new(Broken(Some(error))),
    };
    Ok((head.clone(), Box::new(Cursor::new(head).chain(rest))))
}

/// Gives one error, then nothing.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

fn format(path: &Path, head: &[u8]) -> Result<Format, IngestError> {
    if let Some(cut) = lengths(head) {
        return Ok(Format::Messages(cut));
    }
    if head.starts_with(&[0xFF, 0xFE]) || head.starts_with(&[0xFE, 0xFF]) {
        return Err(IngestError::Utf16 { path: path.to_owned() });
    }
    let text = String::from_utf8_lossy(head.strip_prefix(BOM).unwrap_or(head));
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((number, first)) = lines.next() else {
        return Err(IngestError::Empty { path: path.to_owned() });
    };
    let rest: Vec<&str> = lines.take(TABLE_ROWS).map(|(_, line)| line).collect();
    let json = first.trim_start();
    if matches!(json.trim_end(), "{" | "[") {
        return Err(IngestError::Spread { path: path.to_owned() });
    }
    if json.starts_with('{') && !Prometheus::could_be(first) {
        return json_format(path, first);
    }
    if let Some(layout) = Layout::of(first, &rest) {
        return Ok(Format::Csv(layout));
    }
    let sample = text.lines().find(|line| !line.starts_with("# ") && !line.trim().is_empty());
    if Prometheus::could_be(first) || sample.is_some_and(Prometheus::could_be) {
        return Ok(if Prometheus::is_by_series(&text) { Format::Series } else { Format::Prometheus });
    }
    by_name(path, &text, number as u64 + 1)
}

/// Whether the file begins with the length of a message and a message: a zstd frame, protobuf's first field, or JSON.
fn lengths(head: &[u8]) -> Option<Cut> {
    let (len, message) = head.split_first_chunk::<4>()?;
    let is_zstd = message.starts_with(&file::ZSTD_MAGIC);
    let len = u32::from_be_bytes(*len) as usize;
    // No text begins with a zero, which the length of a message of less than 16 MiB does.
    let is_message = matches!(message.first(), Some(0x0A | b'{')) && (2..MAX_LINE_BYTES).contains(&len);
    (is_zstd || is_message).then_some(Cut::Lengths { is_zstd })
}

fn json_format(path: &Path, first: &str) -> Result<Format, IngestError> {
    let has = |key: &str| first.contains(key);
    if OTLP_KEYS.iter().any(|key| has(key)) {
        return Ok(Format::Otlp);
    }
    if has("\"fault\"") && has("\"start\"") && !has("\"metric\"") && !has("\"event\"") {
        return Err(IngestError::Labels { path: path.to_owned() });
    }
    Ok(Format::Ndjson)
}

/// The start is like no capture. A later line may be, or the name tells which decoder is to say what is wrong.
fn by_name(path: &Path, text: &str, line: u64) -> Result<Format, IngestError> {
    let path_buf = path.to_owned();
    // What it looks like is told by the decoder, whatever the file is called.
    if ["sep=", "#datatype,", "#group,", "#default,"].iter().any(|start| text.trim_start().starts_with(start))
    {
        return Ok(Format::Csv(Layout::unknown()));
    }
    if let Some(json) = text.lines().find(|line| line.starts_with("{\"")) {
        return json_format(path, json);
    }
    match extension(path).as_str() {
        "csv" => Ok(Format::Csv(Layout::unknown())),
        "ndjson" | "jsonl" => Ok(Format::Ndjson),
        "prom" if Prometheus::is_by_series(text) => Ok(Format::Series),
        "prom" => Ok(Format::Prometheus),
        "yaml" | "yml" => Err(IngestError::Config { path: path_buf }),
        _ if text.lines().any(|line| CONFIG_KEYS.iter().any(|key| line.starts_with(key))) => {
            Err(IngestError::Config { path: path_buf })
        }
        _ => Err(IngestError::Unknown { path: path_buf, line }),
    }
}

/// A table's series is named after its file, without extensions.
fn series_name(path: &Path) -> String {
    if file::is_stdin(path) {
        return "value".to_owned();
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = [".gz", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let name = name.strip_suffix(".csv").unwrap_or(name);
    name.chars().take(256).collect()
}
