//! `timestamp,value` tables: a single series of samples, one a row.
//!
//! The header is optional. Where it names the time (`timestamp`, `time`, `date`, ..) and a `value` those are
//! taken, else the first column and the first one beside it that holds a number. A column that counts the rows, as pandas
//! writes its index, is no value. Further columns are left alone, and rows are taken in the order of the file: people are told where there are other columns and where
//! time runs backwards. Times are epoch seconds, milliseconds, microseconds or nanoseconds, RFC 3339, or ISO 8601
//! without a zone, which is UTC. The series is named after the file. A quoted field must end on its line.

mod bad;

use std::path::Path;

use relight_core::Timestamp;
use relight_core::record::{Kind, Reason};
use relight_core::series::encode_key;

use self::bad::Bad;
use crate::error::IngestError;
use crate::file;
use crate::lines::{Line, Lines};
use crate::scan::table_time;
use crate::sniff;
use crate::source::{Decoder, Sink};

const BOM: &str = "\u{FEFF}";
/// Columns of a wide table that are named to people, and how much of each name.
const SHOWN_COLUMNS: usize = 5;
/// Names of a column of times, in the order in which they are looked for.
const TIME_NAMES: [&str; 9] =
    ["timestamp", "time", "datetime", "date", "ts", "t", "@timestamp", "epoch", "_time"];
/// Names of a column of values, likewise.
const VALUE_NAMES: [&str; 2] = ["value", "_value"];
/// A column of times below this (in 1973) beside one of later times holds no times: it counts the rows.
const EARLIEST: Timestamp = Timestamp::from_secs(100_000_000);

/// Where time and value stand in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    time: usize,
    value: usize,
    header: bool,
    /// A column that counts the rows.
    index: Option<usize>,
}

impl Layout {
    /// Tells from the first line, and those behind it where the first is a header; `None` if this is no table.
    pub(crate) fn of(first: &str, rest: &[&str]) -> Option<Self> {
        let first = first.strip_prefix(BOM).unwrap_or(first);
        if let Some(plain) = Self::without_header(first) {
            return Some(plain);
        }
        let names = fields(first);
        let rows: Vec<Vec<String>> = rest.iter().map(|row| fields(row)).collect();
        let find = |name: &str| names.iter().position(|n| n.trim().eq_ignore_ascii_case(name));
        let time = TIME_NAMES.iter().find_map(|name| find(name));
        let time_ix = time.unwrap_or(0);
        let is_number = |ix: usize| rows.iter().any(|row| field(row, ix).parse::<f64>().is_ok());
        let index = (0..names.len()).find(|ix| *ix != time_ix && is_index(*ix, &names, &rows));
        let others = || (0..names.len()).filter(|ix| *ix != time_ix);
        // An index is taken only where nothing else holds a number.
        let numbers = others().filter(|ix| Some(*ix) != index).find(|ix| is_number(*ix));
        let value = VALUE_NAMES.iter().find_map(|name| find(name)).filter(|value| *value != time_ix);
        let value = value.or(numbers).or_else(|| others().find(|ix| is_number(*ix)));
        let value = value.or_else(|| others().next()).unwrap_or(1);
        let layout =
            Self { time: time_ix, value, header: true, index: index.filter(|index| *index != value) };
        let is_table = match rest.first() {
            Some(second) => {
                let row = Row::read(second, layout);
                row.value.is_some() && table_time(row.time.trim().as_bytes()).is_some()
            }
            None => names.len() > 1 && time.is_some(),
        };
        is_table.then_some(layout)
    }

    /// Of a line that is a row itself.
    fn without_header(first: &str) -> Option<Self> {
        let plain = Self { time: 0, value: 1, header: false, index: None };
        let indexed = Self { time: 1, value: 2, header: false, index: Some(0) };
        let at = |layout| Row::read(first, layout).sample().ok().map(|(at, _)| at);
        let (time, later) = (at(plain), at(indexed));
        // Two numbers in front may be a time and a value as well as an index and a time.
        let is_indexed =
            later.is_some_and(|later| later >= EARLIEST) && time.is_none_or(|time| time < EARLIEST);
        if is_indexed { Some(indexed) } else { time.map(|_| plain) }
    }

    /// For a file that is a CSV by its name only: the rows will tell what is wrong with them.
    pub(crate) const fn unknown() -> Self {
        Self { time: 0, value: 1, header: false, index: None }
    }
}

fn field(row: &[String], ix: usize) -> &str {
    row.get(ix).map_or("", |field| field.trim())
}

/// Whether a column counts the rows: pandas gives its index no name (and calls it `Unnamed: 0` when it reads that again); with
/// a name it is one in front that goes 0, 1, 2.
fn is_index(ix: usize, names: &[String], rows: &[Vec<String>]) -> bool {
    let name = names[ix].trim();
    let numbers: Vec<Option<u64>> = rows.iter().map(|row| field(row, ix).parse().ok()).collect();
    if name.is_empty() || name.starts_with("Unnamed:") {
        return numbers.first().is_some_and(Option::is_some);
    }
    let counts = numbers.iter().zip(0..).all(|(number, n)| *number == Some(n));
    ix == 0 && counts && numbers.len() >= 3
}

/// The two fields of a row that matter, as they are written; a time that is missing is empty.
struct Row {
    time: String,
    value: Option<String>,
}

impl Row {
    fn read(line: &str, layout: Layout) -> Self {
        let mut fields = fields(line.strip_prefix(BOM).unwrap_or(line));
        let mut take = |ix: usize| fields.get_mut(ix).map(std::mem::take);
        Self { time: take(layout.time).unwrap_or_default(), value: take(layout.value) }
    }

    fn sample(&self) -> Result<(Timestamp, f64), Bad<'_>> {
        let value = self.value.as_deref().ok_or(Bad::Few)?.trim();
        let time = self.time.trim();
        let at = table_time(time.as_bytes()).ok_or(Bad::Time(time))?;
        if value.is_empty() {
            return Err(Bad::NoValue);
        }
        let number: f64 = value.parse().map_err(|_| Bad::Value(value))?;
        if number.is_finite() { Ok((at, number)) } else { Err(Bad::NotFinite(value)) }
    }
}

fn fields(line: &str) -> Vec<String> {
    if !line.contains('"') {
        return line.split(',').map(str::to_owned).collect();
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(true) => record.iter().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Decoder of a table.
pub(crate) struct Csv {
    layout: Layout,
    header_due: bool,
    key: Vec<u8>,
    /// Whether this is the first line that is read.
    is_first: bool,
    /// Time of the row before; and of the rows that are older than theirs, the first one's line and how many.
    last: Timestamp,
    backwards: Option<(u64, u64)>,
}

impl Csv {
    pub(crate) fn new(layout: Layout, series: &str) -> Self {
        let mut key = Vec::new();
        encode_key(series, std::iter::empty(), &mut key);
        let (is_first, last, backwards) = (true, Timestamp::MIN, None);
        Self { layout, header_due: layout.header, key, is_first, last, backwards }
    }

    /// Tells people what of a wide table is left alone.
    fn tell_columns(&self, line: &[u8], out: &mut Sink<'_>) {
        let text = String::from_utf8_lossy(line);
        let names = fields(text.strip_prefix(BOM).unwrap_or(&text));
        let Layout { time, value, .. } = self.layout;
        if names.len() <= 2 || time.max(value) >= names.len() {
            return;
        }
        let named = self.header_due;
        let name = |ix: usize| match names[ix].trim() {
            name if named && !name.is_empty() => bad::quoted(name),
            _ => format!("column {}", ix + 1),
        };
        let is_left = |ix: &usize| *ix != time && *ix != value && Some(*ix) != self.layout.index;
        let others: Vec<usize> = (0..names.len()).filter(is_left).collect();
        if others.is_empty() {
            return;
        }
        let mut left: Vec<String> = others.iter().take(SHOWN_COLUMNS).map(|ix| name(*ix)).collect();
        if others.len() > SHOWN_COLUMNS {
            left.push(format!("{} more", others.len() - SHOWN_COLUMNS));
        }
        // `cut` writes columns in the order of the file, and the time is to come first.
        let another = others.iter().find(|ix| **ix > time).unwrap_or(&others[0]);
        out.remark(format_args!(
            "of {} columns only {} and {} are read, as one series, and not {}; to watch another, cut it out \
             (`cut -d, -f{},{}`), to watch them together, write newline-delimited JSON with labels",
            names.len(),
            name(time),
            name(value),
            left.join(", "),
            time + 1,
            another + 1,
        ));
    }

    fn note_order(&mut self, at: Timestamp, line: u64) {
        if at < self.last {
            self.backwards.get_or_insert((line, 0)).1 += 1;
        }
        self.last = at;
    }
}

impl Decoder for Csv {
    fn decode(&mut self, line: &[u8], out: &mut Sink<'_>) -> Option<u32> {
        if std::mem::take(&mut self.is_first) {
            self.tell_columns(line, out);
        }
        if std::mem::take(&mut self.header_due) {
            return None;
        }
        let Ok(text) = std::str::from_utf8(line) else {
            out.refuse(Reason::Malformed, "not UTF-8");
            return Some(0);
        };
        match Row::read(text, self.layout).sample() {
            Ok((at, value)) => {
                self.note_order(at, out.line());
                out.record.push_point(&self.key, at, Timestamp::MIN, Kind::Gauge, value);
            }
            Err(bad) => out.refuse(bad.reason(), bad.why(text, self.layout.time)),
        }
        Some(0)
    }

    fn pass(&mut self, _line: &[u8]) {
        self.header_due = false;
        self.is_first = false;
    }

    fn end(&mut self, out: &mut Sink<'_>) {
        if let Some((line, rows)) = self.backwards {
            out.remark_at(
                line,
                format_args!(
                    "{rows} row{} older than the row before, here first: rows are judged in the order of the \
                     file, so sort it by time (its rows without the header: `sort -t, -k{ix},{ix}`)",
                    if rows == 1 { " is" } else { "s are" },
                    ix = self.layout.time + 1,
                ),
            );
        }
    }

    fn is_samples(&self) -> bool {
        true
    }

    fn is_in_order(&self) -> bool {
        self.backwards.is_none()
    }
}

/// One row of a table, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRow {
    /// The offset of its record.
    pub offset: u64,
    /// Its time, exactly as in the file.
    pub timestamp: String,
    /// Its value, exactly as in the file.
    pub value: String,
    /// Whether its record has a point: the row could be read, and its value is finite.
    pub accepted: bool,
}

/// The rows of a table, without its header: what `--scores` puts its column beside.
pub struct SampleRows {
    path: std::path::PathBuf,
    lines: Lines,
    layout: Layout,
    header_due: bool,
}

/// Reads a table's rows as they are written. A row that cannot be read is among them.
pub fn sample_rows(path: &Path) -> Result<SampleRows, IngestError> {
    let opened = file::open(path)?;
    let (layout, bytes) = sniff::layout(path, opened.bytes)?;
    Ok(SampleRows { path: path.to_owned(), lines: Lines::new(bytes), layout, header_due: layout.header })
}

impl SampleRows {
    /// The next row; `None` after the last.
    pub fn next_row(&mut self) -> Result<Option<SampleRow>, IngestError> {
        loop {
            let line = self.lines.count();
            let failed = |source| IngestError::Read { path: self.path.clone(), line, source };
            let (offset, line) = self.lines.read().map_err(failed)?;
            let text = match line {
                Line::End => return Ok(None),
                Line::TooLong | Line::Broken(_) => std::borrow::Cow::Borrowed(""),
                Line::Text(line) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Line::Text(line) => String::from_utf8_lossy(line),
            };
            if std::mem::take(&mut self.header_due) {
                continue;
            }
            let row = Row::read(&text, self.layout);
            let accepted = row.sample().is_ok();
            return Ok(Some(SampleRow {
                offset,
                timestamp: row.time,
                value: row.value.unwrap_or_default(),
                accepted,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::decode_lines;

    fn check(text: &str, expected: &[&str]) {
        let lines: Vec<&str> = text.lines().collect();
        let layout = Layout::of(lines[0], &lines[1..]).expect("a table");
        let (records, complaints) = decode_lines(&mut Csv::new(layout, "cpu"), &lines);
        let shown: Vec<String> = records
            .iter()
            .map(|(_, record)| match record.points.first() {
                Some(point) => format!("{}: {} {}", record.offset, point.at, point.value),
                None => format!("{}: {}", record.offset, record.refused[0].0.name()),
            })
            .collect();
        assert_eq!(shown, expected, "{complaints:?}");
    }

    #[test]
    fn tables_of_every_shape() {
        check(
            "timestamp,value\n2014-04-01 00:00:00,20.0\n2014-04-01 00:05:00,1e2",
            &["1: 2014-04-01T00:00:00Z 20", "2: 2014-04-01T00:05:00Z 100"],
        );
        check(
            "1493568000,1.5,0\n1493568060,2,1",
            &["0: 2017-04-30T16:00:00Z 1.5", "1: 2017-04-30T16:01:00Z 2"],
        );
        check("value,label,timestamp\n3,0,1493568000\n", &["1: 2017-04-30T16:00:00Z 3"]);
        check("host,time,cpu,mem\nweb-1,1493568000,7,9", &["1: 2017-04-30T16:00:00Z 7"]);
        check("date,host,load\n2014-04-01,web-1,7", &["1: 2014-04-01T00:00:00Z 7"]);
        check("\u{FEFF}time,cpu\n\"2014-04-01 00:00:00\",\"20\"", &["1: 2014-04-01T00:00:00Z 20"]);
        check(
            "1493568000,1\n1493568060\n1493568120,\n1493568180,nan\nnoon,1\n1493568240,x\n1493568300,2",
            &[
                "0: 2017-04-30T16:00:00Z 1",
                "1: malformed",
                "2: no_recorded_value",
                "3: non_finite",
                "4: malformed",
                "5: malformed",
                "6: 2017-04-30T16:05:00Z 2",
            ],
        );
    }

    /// Scenario: tables with pandas' index, without a name, with the name that it gets when it is read again, with one of its
    /// own and without a header; an index that holds the times; and columns that only look like one.
    /// Guarantee: what counts the rows is no value, and nobody is told that it is left alone.
    #[test]
    fn a14c_an_index_is_no_value() {
        let at = "2026-01-01T00:00:00Z";
        for text in [
            ",timestamp,cpu\n0,1767225600,0.5\n1,1767225660,1.5",
            "Unnamed: 0,timestamp,cpu\n0,1767225600,0.5",
            "Unnamed: 0.1,Unnamed: 0,timestamp,value\n0,0,1767225600,0.5",
            "index,ts,load\n0,1767225600,0.5\n1,1767225660,1.5\n2,1767225720,2.5",
            ",cpu\n2026-01-01 00:00:00,0.5\n2026-01-01 00:01:00,1.5",
            ",time,host,cpu\n7,1767225600,web-1,0.5\n8,1767225660,web-1,1.5",
            "0,1767225600,0.5\n1,1767225660,1.5",
            "17,2026-01-01 00:00:00,0.5,1",
            "timestamp,cpu,\n1767225600,0.5,0",
            "id,timestamp,count\n5,1767225600,0.5\n9,1767225660,1".replace("id", "").as_str(),
            ",timestamp,cpu\n0,1767225600,\n1,1767225660,0.5\n"
                .replace("0,1767225600,\n1,1767225660", "0,1767225600")
                .as_str(),
        ] {
            let lines: Vec<&str> = text.lines().collect();
            let layout = Layout::of(lines[0], &lines[1..]).expect("a table");
            let (records, told) = decode_lines(&mut Csv::new(layout, "cpu"), &lines);
            let point = records[0].1.points[0];
            assert_eq!((point.at.to_string().as_str(), point.value), (at, 0.5), "{text}");
            assert!(told.iter().all(|told| !told.contains("column 1")), "{text}: {told:?}");
        }
        check(
            "id,timestamp\n3,1493568000\n4,1493568060",
            &["1: 2017-04-30T16:00:00Z 3", "2: 2017-04-30T16:01:00Z 4"],
        );
        check("10,20,30", &["0: 1970-01-01T00:00:10Z 20"]);
    }

    /// Scenario: wide tables, tables out of order, and tables that are neither.
    /// Guarantee: what is not read, and rows that stand in no order, are told with their line and how many.
    #[test]
    fn what_is_odd_about_a_table_is_told() {
        let told = |text: &str| {
            let lines: Vec<&str> = text.lines().collect();
            let layout = Layout::of(lines[0], &lines[1..]).expect("a table");
            let told = decode_lines(&mut Csv::new(layout, "cpu"), &lines).1;
            let short = |line: &String| line.split([';', '(']).next().unwrap_or_default().to_owned();
            told.iter().map(short).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(told("timestamp,value\n10,1\n20,2\n20,3"), none);
        assert_eq!(
            told("timestamp,cpu,mem,disk\n10,1,2,3"),
            [
                "test:1: of 4 columns only `timestamp` and `cpu` are read, as one series, and not `mem`, `disk`"
            ]
        );
        assert_eq!(
            told("10,1,2,3,4,5,6,7"),
            ["test:1: of 8 columns only column 1 and column 2 are read, as one series, and not column 3, \
              column 4, column 5, column 6, column 7, 1 more"]
        );
        let order = "rows are judged in the order of the file, so sort it by time ";
        let older = |what: &str| format!("{what} older than the row before, here first: {order}");
        assert_eq!(told("timestamp,value\n10,1\n30,2\n20,3\n25,3"), [older("test:4: 1 row is")]);
        assert_eq!(told("timestamp,value\n30,1\n20,2\n10,3"), [older("test:3: 2 rows are")]);
        assert_eq!(
            told("10,1\n20,\n30,nan\n40,1.5x\n50,1"),
            [
                "test:2: there is no value",
                "test:3: the value `nan` is not finite",
                "test:4: the value `1.5x` is no number"
            ]
        );
    }

    #[test]
    fn other_text_is_no_table() {
        for (first, rest) in
            [("{\"t\":1}", &[][..]), ("signals:", &["  a,b: c"]), ("a,b", &["c,d"]), ("", &[])]
        {
            assert_eq!(Layout::of(first, rest), None, "{first}");
        }
    }
}
