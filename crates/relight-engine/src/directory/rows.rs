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

/// There is one a row: a third variant would make it half as large again.
enum Name {
    /// Of [`NOBODY`] it is a number that no row has.
    Series(u32, Stat),
    Key(Box<[u8]>),
}

/// No series has this number.
const NOBODY: u32 = u32::MAX;

/// A row that several series may feed, and how many feeds it has.
struct Fed {
    at: RowAddr,
    feeds: u32,
}

/// A rule group: its number, and how many rows fall into it.
struct RuleGroup {
    number: u32,
    rows: u32,
}

/// A row whose history is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneRow {
    /// Where it lives.
    pub at: RowAddr,
    /// Numbers of the rule groups that it is taken out of; `None` if it stays, since a series feeds it that no bin
    /// has seen.
    pub groups: Option<Vec<u32>>,
}

pub(super) struct Rows {
    /// `names[signal][group][row]`.
    names: Vec<Vec<Vec<Name>>>,
    by_key: BTreeMap<(u16, Box<[u8]>), Fed>,
    /// Rules that look at a signal: their index and how they group.
    rules: Vec<Vec<(usize, GroupBy)>>,
    signal_names: Vec<String>,
    rule_groups: BTreeMap<(usize, Labels), RuleGroup>,
    free_groups: Vec<u32>,
    /// Rule groups were numbered up to here.
    group_numbers: u32,
    /// Numbers within a signal and key group that nobody has.
    free: BTreeMap<(u16, KeyGroup), Vec<u32>>,
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
            free_groups: Vec::new(),
            group_numbers: 0,
            free: BTreeMap::new(),
            unlinked: BTreeMap::new(),
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn rule_group(&self, rule: usize, group: &Labels) -> Option<u32> {
        self.rule_groups.get(&(rule, group.clone())).map(|group| group.number)
    }

    /// The numbers of all groups of a rule, in the order of their labels.
    pub(super) fn rule_groups(&self, rule: usize) -> impl Iterator<Item = u32> + '_ {
        let from = (rule, Labels::default());
        self.rule_groups
            .range(from..)
            .take_while(move |((of, _), _)| *of == rule)
            .map(|(_, group)| group.number)
    }

    pub(super) fn knows(&self, signal: usize, key: &[u8]) -> bool {
        self.by_key.contains_key(&(signal as u16, key.into()))
    }

    pub(super) fn intern(&mut self, signal: usize, key: &[u8], rows: &mut Vec<NewRow>) -> RowAddr {
        let signal_ix = signal as u16;
        // A look-up by a borrowed pair would need a wrapper type; rows are interned once a series.
        if let Some(known) = self.by_key.get(&(signal_ix, key.into())) {
            return known.at;
        }
        let at = self.place(signal_ix, KeyGroup::of(key), Name::Key(key.into()));
        self.by_key.insert((signal_ix, key.into()), Fed { at, feeds: 0 });
        self.announce(at, Stat::Plain, KeyView::new(key), rows);
        at
    }

    /// The same for a series that feeds it `feeds` times.
    pub(super) fn intern_fed(
        &mut self,
        signal: usize,
        key: &[u8],
        feeds: u32,
        rows: &mut Vec<NewRow>,
    ) -> RowAddr {
        let at = self.intern(signal, key, rows);
        if let Some(fed) = self.by_key.get_mut(&(signal as u16, key.into())) {
            fed.feeds += feeds;
        }
        at
    }

    fn place(&mut self, signal: u16, group: KeyGroup, name: Name) -> RowAddr {
        let names = &mut self.names[signal as usize][group.ix()];
        if let Some(row) = self.free.get_mut(&(signal, group)).and_then(Vec::pop) {
            names[row as usize] = name;
            return RowAddr { signal, group, row };
        }
        names.push(name);
        RowAddr { signal, group, row: names.len() as u32 - 1 }
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
        let at = self.place(signal as u16, group, Name::Series(series, stat));
        self.announce(at, stat, view, rows);
        at
    }

    /// How many feeds a row has. Of a series by itself there is one.
    pub(super) fn feeds(&self, at: RowAddr) -> u32 {
        match self.name(at) {
            Name::Series(NOBODY, _) => 0,
            Name::Series(..) => 1,
            Name::Key(key) => self.by_key.get(&(at.signal, key.clone())).map_or(0, |fed| fed.feeds),
        }
    }

    /// Takes feeds away from a row. Returns what becomes of it if its history is gone.
    pub(super) fn unfeed(
        &mut self,
        at: RowAddr,
        feeds: u32,
        is_gone: bool,
        arena: &Arena,
    ) -> Option<GoneRow> {
        let left = match &self.names[at.signal as usize][at.group.ix()][at.row as usize] {
            Name::Key(key) => self.by_key.get_mut(&(at.signal, key.clone())).map_or(0, |fed| {
                fed.feeds = fed.feeds.saturating_sub(feeds);
                fed.feeds
            }),
            Name::Series(..) => 0,
        };
        is_gone.then(|| GoneRow { at, groups: (left == 0).then(|| self.remove(at, arena)) })
    }

    /// To be called once after what was taken out: the lowest number is the next to be given away.
    pub(super) fn tidy(&mut self) {
        for rows in self.free.values_mut() {
            rows.sort_unstable_by(|a, b| b.cmp(a));
        }
    }

    /// Takes a row out, and says of which rule groups it was.
    fn remove(&mut self, at: RowAddr, arena: &Arena) -> Vec<u32> {
        let key = self.identity(at, arena).0.to_vec();
        let name = &mut self.names[at.signal as usize][at.group.ix()][at.row as usize];
        if let Name::Key(key) = std::mem::replace(name, Name::Series(NOBODY, Stat::Plain)) {
            self.by_key.remove(&(at.signal, key));
        }
        self.free.entry((at.signal, at.group)).or_default().push(at.row);
        self.len -= 1;
        let mut groups = Vec::new();
        for (rule, group_by) in &self.rules[at.signal as usize] {
            let group = (*rule, group_by.group(KeyView::new(&key)));
            let Some(known) = self.rule_groups.get_mut(&group) else { continue };
            known.rows -= 1;
            groups.push(known.number);
            if known.rows == 0 {
                self.free_groups.push(known.number);
                self.rule_groups.remove(&group);
            }
        }
        groups
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
            let group = self.rule_groups.entry((*rule, group_by.group(view))).or_insert_with(|| {
                // Numbers are dense: those in use and those that are free are all there are.
                let next = self.group_numbers;
                let number = self.free_groups.pop().unwrap_or(next);
                self.group_numbers += u32::from(number == next);
                RuleGroup { number, rows: 0 }
            });
            group.rows += 1;
            groups.push(group.number);
        }
        rows.push(NewRow { at, stat, groups });
    }

    fn name(&self, at: RowAddr) -> &Name {
        &self.names[at.signal as usize][at.group.ix()][at.row as usize]
    }

    pub(super) fn identity<'a>(&'a self, at: RowAddr, arena: &'a Arena) -> (&'a [u8], Stat) {
        match self.name(at) {
            Name::Series(NOBODY, _) => (&[], Stat::Plain),
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

    pub(super) fn has_any(&self, signal: usize, group: KeyGroup) -> bool {
        !self.names[signal][group.ix()].is_empty()
    }

    pub(super) fn order(&self, signal: usize, group: KeyGroup, arena: &Arena) -> Vec<u32> {
        let at = |row: u32| RowAddr { signal: signal as u16, group, row };
        let names = &self.names[signal][group.ix()];
        let taken = |row: &u32| !matches!(names[*row as usize], Name::Series(NOBODY, _));
        let mut order: Vec<u32> = (0..names.len() as u32).filter(taken).collect();
        order.sort_unstable_by(|a, b| self.identity(at(*a), arena).cmp(&self.identity(at(*b), arena)));
        order
    }

    pub(super) fn state_bytes(&self) -> usize {
        let names: usize =
            self.names.iter().flatten().map(|names| names.capacity() * size_of::<Name>()).sum();
        let free: usize = self.free.values().map(|rows| rows.capacity() * 4).sum();
        names + free + self.by_key.keys().map(|(_, key)| key.len() * 2 + 64).sum::<usize>()
    }
}
