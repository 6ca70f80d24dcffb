//! What a run has to tell: figures that depend on the stream alone, never on the machine.

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::detector::Reading;
use relight_core::incident::{Action, Incident};
use relight_core::record::Reason;
use relight_core::{Timestamp, codec_struct};
use relight_engine::control::summary::RuleSummary;
use relight_engine::counters::{Counters, Fall};
use relight_engine::detect::Warming;
use relight_engine::directory::{Directory, RowAddr, Unmatched};
use relight_engine::intake::ReadyBin;

/// One verdict, as `--scores` writes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredRow {
    /// The record that the bin stands for, where bins are samples.
    pub offset: u64,
    /// Time of the value.
    pub at: Timestamp,
    /// Where the row lives.
    pub row: RowAddr,
    /// Index of the detector in the settings.
    pub detector: usize,
    /// The value; NaN for a missing one.
    pub value: f64,
    /// Score and band.
    pub reading: Reading,
}

/// Sums over the whole stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Partitions read.
    pub partitions: u64,
    /// Records taken.
    pub records: u64,
    /// Points accepted.
    pub points: u64,
    /// Events accepted.
    pub events: u64,
    /// Series known.
    pub series: u64,
    /// Rows known.
    pub rows: u64,
    /// Series evicted, since they had been silent for long.
    pub evicted: u64,
    /// Bins with data.
    pub turns: u64,
    /// Findings.
    pub findings: u64,
    /// Start of the first bin; [`Timestamp::MAX`] if there was none.
    pub first: Timestamp,
    /// End of the last bin; [`Timestamp::MIN`] if there was none.
    pub last: Timestamp,
    /// What was refused, by reason, in the order of reasons; only what occurred.
    pub refused: Vec<(Reason, u64)>,
    /// Falls of running totals by what they were taken for; only what occurred.
    pub falls: Vec<(Fall, u64)>,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            partitions: 0,
            records: 0,
            points: 0,
            events: 0,
            series: 0,
            rows: 0,
            evicted: 0,
            turns: 0,
            findings: 0,
            first: Timestamp::MAX,
            last: Timestamp::MIN,
            refused: Vec::new(),
            falls: Vec::new(),
        }
    }
}

impl Totals {
    pub(crate) fn turn(&mut self, ready: &ReadyBin, has_data: bool, findings: usize) {
        self.findings += findings as u64;
        if has_data {
            self.turns += 1;
            self.first = self.first.min(ready.at);
            self.last = self.last.max(ready.end);
        }
    }

    pub(crate) fn complete(&self, counters: &Counters, directory: &Directory, partitions: u64) -> Self {
        let refused = Reason::ALL.iter().map(|reason| (*reason, counters.refused(*reason)));
        let falls = Fall::ALL.iter().map(|fall| (*fall, counters.falls(*fall)));
        Self {
            partitions,
            records: counters.records,
            points: counters.points,
            events: counters.events,
            series: directory.series_len() as u64,
            rows: directory.rows_len() as u64,
            refused: refused.filter(|(_, n)| *n > 0).collect(),
            falls: falls.filter(|(_, n)| *n > 0).collect(),
            ..*self
        }
    }
}

/// The part of the totals that lives in snapshots; the rest is counted elsewhere.
struct Kept {
    turns: u64,
    findings: u64,
    first: Timestamp,
    last: Timestamp,
}
codec_struct!(Kept { turns, findings, first, last });

impl Codec for Totals {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { turns, findings, first, last, .. } = *self;
        Kept { turns, findings, first, last }.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let Kept { turns, findings, first, last } = Kept::decode(reader)?;
        Ok(Self { turns, findings, first, last, ..Self::default() })
    }
}

/// The outcome of a replay. With a state folder: of all that the folder holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Sums.
    pub totals: Totals,
    /// The sums of what the state folder held before this run.
    pub earlier: Totals,
    /// What of the signals has met nothing.
    pub unmatched: Vec<Unmatched>,
    /// Of each detector that has such rows, by its name, which ones had not seen enough to be judged at the end.
    pub warming: Vec<(String, Warming)>,
    /// Whether times are those of the captures. Those of samples that stand in no order are made up.
    pub times_known: bool,
    /// Incidents, by id, which is by time.
    pub incidents: Vec<Incident>,
    /// Actions, by id.
    pub actions: Vec<Action>,
    /// Per rule, how often and how fast.
    pub rules: Vec<RuleSummary>,
    /// What a person should know: damage, bad lines.
    pub notices: Vec<String>,
}
