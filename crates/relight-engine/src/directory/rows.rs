//! Rows by name: numbered per signal and row group, with the rule groups they fall into.

use std::collections::BTreeMap;

use relight_core::rule::{GroupBy, Settings};
use relight_core::series::{KEY_GROUPS, KeyGroup, KeyView, Labels, encode_key};
use relight_core::signal::SignalKind;

use super::arena::Arena;

/// Where a row lives: its signal, its key group, its number in there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowAddr {
    /// Index of the signal in the settings.
    pub signal: u16,
    /// Key group.
    pub group: KeyGroup,
    /// Number within signal and group.
    pub row: u32,
}

/// Which figure of a series its own row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stat {
    /// A gauge's mean, or a row that several series feed.
    Plain = 0,
    /// A sum's increase, or a histogram's observations, per second.
    Rate = 1,
    /// A histogram's 99th percentile.
    P99 = 2,
}

impl Stat {
    /// From its code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Plain),
            1 => Some(Self::Rate),
            2 => Some(Self::P99),
            _ => None,
        }
    }
}

/// A row that was met for the first time: what Detect has to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// Where it lives.
    pub at: RowAddr,
    /// What it shows, if it is a series by itself.
    pub stat: Stat,
    /// Numbers of the rule groups that it falls into.
    pub groups: Vec<u32>,
}

enum Name {
    Series(u32, Stat),
    Key(Box<[u8]>),
}

pub(super) struct Rows {
    /// `names[signal][group][row]`.
    names: Vec<Vec<Vec<Name>>>,
    by_key: BTreeMap<(u16, Box<[u8]>), RowAddr>,
    /// Rules that look at a signal: their index and how they group.
    rules: Vec<Vec<(usize, GroupBy)>>,
    signal_names: Vec<String>,
    rule_groups: BTreeMap<(usize, Labels), u32>,
    /// Rows of images that no series has been linked to yet.
    unlinked: BTreeMap<(u16, u32, Stat), RowAddr>,
    len: usize,
}

impl Rows {
    pub(super) fn new(settings: &Settings) -> Self {
        let signals = settings.signals.len();
        let mut rules = vec![Vec::new(); signals];
        for (ix, rule) in settings.rules.iter().enumerate() {
            let mut of_rule: Vec<usize> =
                rule.detectors.iter().map(|d| settings.detectors[*d].signal).collect();
            of_rule.sort_unstable();
            of_rule.dedup();
            for signal in of_rule {
                rules[signal].push((ix, rule.group_by.clone()));
            }
        }
        let groups = || (0..KEY_GROUPS).map(|_| Vec::new()).collect();
        Self {
            names: (0..signals).map(|_| groups()).collect(),
            by_key: BTreeMap::new(),
            rules,
            signal_names: settings
                .signals
                .iter()
                .map(|s| match s.kind {
                    SignalKind::EverySeries => String::new(),
                    _ => s.name.clone(),
                })
                .collect(),
            rule_groups: BTreeMap::new(),
            unlinked: BTreeMap::new(),
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn rule_group(&self, rule: usize, group: &Labels) -> Option<u32> {
        self.rule_groups.get(&(rule, group.clone())).copied()
    }

    pub(super) fn knows(&self, signal: usize, key: &[u8]) -> bool {
        self.by_key.contains_key(&(signal as u16, key.into()))
    }

    pub(super) fn intern(&mut self, signal: usize, key: &[u8], rows: &mut Vec<NewRow>) -> RowAddr {
        let signal_ix = signal as u16;
        // A look-up by a borrowed pair would need a wrapper type; rows are interned once a series.
        if let Some(at) = self.by_key.get(&(signal_ix, key.into())) {
            return *at;
        }
        let group = KeyGroup::of(key);
        let names = &mut self.names[signal][group.ix()];
        let at = RowAddr { signal: signal_ix, group, row: names.len() as u32 };
        names.push(Name::Key(key.into()));
        self.by_key.insert((signal_ix, key.into()), at);
        self.announce(at, Stat::Plain, KeyView::new(key), rows);
        at
    }

    pub(super) fn add_series_row(
        &mut self,
        signal: usize,
        group: KeyGroup,
        series: u32,
        stat: Stat,
        view: KeyView<'_>,
        rows: &mut Vec<NewRow>,
    ) -> RowAddr {
        if let Some(at) = self.unlinked.remove(&(signal as u16, series, stat)) {
            return at;
        }
        let names = &mut self.names[signal][group.ix()];
        let at = RowAddr { signal: signal as u16, group, row: names.len() as u32 };
        names.push(Name::Series(series, stat));
        self.announce(at, stat, view, rows);
        at
    }

    pub(super) fn restore_series_row(
        &mut self,
        signal: usize,
        group: KeyGroup,
        series: u32,
        stat: Stat,
        view: KeyView<'_>,
        rows: &mut Vec<NewRow>,
    ) -> RowAddr {
        let at = self.add_series_row(signal, group, series, stat, view, rows);
        self.unlinked.insert((signal as u16, series, stat), at);
        at
    }

    pub(super) fn finish_restore(&mut self) {
        self.unlinked.clear();
    }

    fn announce(&mut self, at: RowAddr, stat: Stat, view: KeyView<'_>, rows: &mut Vec<NewRow>) {
        self.len += 1;
        let mut groups = Vec::new();
        for (rule, group_by) in &self.rules[at.signal as usize] {
            let next = self.rule_groups.len() as u32;
            groups.push(*self.rule_groups.entry((*rule, group_by.group(view))).or_insert(next));
        }
        rows.push(NewRow { at, stat, groups });
    }

    fn name(&self, at: RowAddr) -> &Name {
        &self.names[at.signal as usize][at.group.ix()][at.row as usize]
    }

    pub(super) fn identity<'a>(&'a self, at: RowAddr, arena: &'a Arena) -> (&'a [u8], Stat) {
        match self.name(at) {
            Name::Series(ix, stat) => (arena.key(*ix), *stat),
            Name::Key(key) => (key, Stat::Plain),
        }
    }

    pub(super) fn display_key(&self, at: RowAddr, arena: &Arena) -> Vec<u8> {
        let (key, stat) = self.identity(at, arena);
        if self.signal_names[at.signal as usize].is_empty() && stat != Stat::Plain {
            let view = KeyView::new(key);
            let function = if stat == Stat::P99 { "p99" } else { "rate" };
            let mut out = Vec::new();
            encode_key(&format!("{function}({})", view.name()), view.labels(), &mut out);
            return out;
        }
        key.to_vec()
    }

    pub(super) fn order(&self, signal: usize, group: KeyGroup, arena: &Arena) -> Vec<u32> {
        let at = |row: u32| RowAddr { signal: signal as u16, group, row };
        let mut order: Vec<u32> = (0..self.names[signal][group.ix()].len() as u32).collect();
        order.sort_unstable_by(|a, b| self.identity(at(*a), arena).cmp(&self.identity(at(*b), arena)));
        order
    }

    pub(super) fn state_bytes(&self) -> usize {
        let names: usize =
            self.names.iter().flatten().map(|names| names.capacity() * size_of::<Name>()).sum();
        names + self.by_key.keys().map(|(_, key)| key.len() * 2 + 64).sum::<usize>()
    }
}
