//! Refusals by name, for people: which metric of which service was refused, why, and how often.
//!
//! Decisions rest on the counts in [`Record::refused`](crate::record::Record::refused) alone. The names are bounded, are
//! no part of a snapshot, and leave out what a sender means well: a series that ended, a point that came twice.

use std::fmt;

use crate::record::Reason;

/// Kinds of refusals that are named; of further kinds only the number is kept.
pub const MAX_KINDS: usize = 8;
/// Bytes that are kept of the name of a metric or service.
const MAX_NAME_BYTES: usize = 80;
/// Bytes that are kept of a detail.
const MAX_DETAIL_BYTES: usize = 160;

/// Points, metrics or log records of one metric of one service that were refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The counter that has them.
    pub reason: Reason,
    /// The metric's name; empty where there is none or it could not be read.
    pub metric: String,
    /// `service.name` of the sender; empty where it has none.
    pub service: String,
    /// The cause in words, a lower-case fragment; empty where the reason's name says it all.
    pub detail: String,
    /// How many.
    pub count: u32,
}

/// Where a refusal comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin<'a> {
    /// See [`Refusal::metric`].
    pub metric: &'a str,
    /// See [`Refusal::service`].
    pub service: &'a str,
}

/// `metric` of service `service`, as far as these are known.
impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (metric, service) = (shown(self.metric, MAX_NAME_BYTES), shown(self.service, MAX_NAME_BYTES));
        match (metric.is_empty(), service.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => write!(f, "`{metric}`"),
            (true, false) => write!(f, "service `{service}`"),
            (false, false) => write!(f, "`{metric}` of service `{service}`"),
        }
    }
}

/// As in `` `http.server.duration` of service `checkout`: bad_histogram 3 (bounds do not ascend) ``.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = Origin { metric: &self.metric, service: &self.service };
        if origin != Origin::default() {
            write!(f, "{origin}: ")?;
        }
        write!(f, "{} {}", self.reason.name(), self.count)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

/// The refusals of a record or of several, at most [`MAX_KINDS`] kinds of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusals {
    kinds: Vec<Refusal>,
    others: u32,
}

impl Refusals {
    /// Adds `count` refusals. Names and detail are cut, and lose what a terminal would obey.
    pub fn add(&mut self, reason: Reason, origin: Origin<'_>, detail: &str, count: u32) {
        if count == 0 {
            return;
        }
        let (metric, service) = (shown(origin.metric, MAX_NAME_BYTES), shown(origin.service, MAX_NAME_BYTES));
        let known =
            |kind: &&mut Refusal| kind.reason == reason && kind.metric == metric && kind.service == service;
        if let Some(kind) = self.kinds.iter_mut().find(known) {
            kind.count = kind.count.saturating_add(count);
        } else if self.kinds.len() < MAX_KINDS {
            let detail = shown(detail, MAX_DETAIL_BYTES);
            self.kinds.push(Refusal { reason, metric, service, detail, count });
        } else {
            self.others = self.others.saturating_add(count);
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for Refusal { reason, metric, service, detail, count } in &other.kinds {
            self.add(*reason, Origin { metric, service }, detail, *count);
        }
        self.others = self.others.saturating_add(other.others);
    }

    /// The kinds that are named, in the order in which they were first met.
    pub fn kinds(&self) -> &[Refusal] {
        &self.kinds
    }

    /// How many refusals are of kinds that are not named.
    pub const fn others(&self) -> u32 {
        self.others
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.others == 0
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.kinds.clear();
        self.others = 0;
    }
}

/// The front of a text, without control characters. Never longer than its input, so that it is the same when done again.
fn shown(text: &str, max_bytes: usize) -> String {
    let front = &text[..text.floor_char_boundary(max_bytes)];
    front.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: refusals of one kind, of too many kinds, and with names that are too long or hold control characters.
    /// Guarantee: each kind is counted once, memory is bounded, and a text is one line that a terminal can show.
    #[test]
    fn refusals_are_grouped_and_bounded() {
        let mut refusals = Refusals::default();
        let origin = Origin { metric: "http.duration", service: "shop" };
        refusals.add(Reason::BadHistogram, origin, "bounds do not ascend", 2);
        refusals.add(Reason::BadHistogram, origin, "another detail of the same kind", 1);
        refusals.add(Reason::Malformed, Origin::default(), "", 1);
        let texts: Vec<String> = refusals.kinds().iter().map(Refusal::to_string).collect();
        let first = "`http.duration` of service `shop`: bad_histogram 3 (bounds do not ascend)";
        assert_eq!(texts, [first, "malformed 1"]);

        let long = "é\u{1B}".repeat(1_000);
        for i in 0..100 {
            let metric = format!("m{i}");
            refusals.add(Reason::NonFinite, Origin { metric: &metric, service: &long }, &long, 1);
        }
        assert_eq!((refusals.kinds().len(), refusals.others()), (MAX_KINDS, 94));
        assert!(refusals.kinds().iter().all(|kind| kind.to_string().len() < 500));
        assert!(!refusals.kinds()[7].to_string().contains('\u{1B}'));

        let mut sum = refusals.clone();
        sum.merge(&refusals);
        assert_eq!((sum.kinds()[0].count, sum.others()), (6, 188));
        sum.clear();
        assert!(sum.is_empty());
    }
}
