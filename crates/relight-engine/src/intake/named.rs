//! What Intake refuses, by name, for people: which metric of which service, and why.
//!
//! Decides nothing and is no part of a snapshot. Of a record only the first refusals are looked at, so that a flood of
//! late points costs little more than their number.

use relight_core::KeyView;
use relight_core::record::Reason;
use relight_core::refusal::{Origin, Refusals};

use super::Intake;

/// Refusals of one record that are looked at.
const LOOKED_AT: u32 = 64;
/// Labels that name a service, the most telling first.
const SERVICES: [&str; 4] = ["service.name", "service_name", "service", "job"];

/// The refusals since they were last taken, and how many of this record were looked at.
#[derive(Debug, Default)]
pub(super) struct Named {
    refusals: Refusals,
    looked_at: u32,
}

impl Named {
    /// A record begins.
    pub(super) const fn begin(&mut self) {
        self.looked_at = 0;
    }

    /// Whether a further refusal of this record is named.
    pub(super) const fn has_room(&self) -> bool {
        self.looked_at < LOOKED_AT
    }

    /// Names a refusal of the series with this key.
    pub(super) fn add(&mut self, reason: Reason, key: &[u8]) {
        self.looked_at += 1;
        let key = KeyView::new(key);
        let service = SERVICES.iter().find_map(|label| key.get(label)).unwrap_or_default();
        self.refusals.add(reason, Origin { metric: key.name(), service }, detail(reason), 1);
    }
}

impl Intake {
    /// What was refused since this was last asked, by name.
    pub fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.named.refusals)
    }
}

/// The cause in words, where the reason's name leaves one open.
const fn detail(reason: Reason) -> &'static str {
    match reason {
        Reason::Late => "older than its source's newest by more than `allowed_lateness`",
        Reason::Future => "over 10 minutes ahead of its arrival",
        Reason::SeriesLimit => "a new series, and the table is full (`max_series`)",
        Reason::SourceSeriesLimit => "a new series beyond the source's `limits.max_series`",
        Reason::MemoryLimit => "a new series while memory is short",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use relight_core::series::encode_key;

    use super::*;

    /// Guarantee: a refusal names metric and service by the most telling label; of a flood the first are named.
    #[test]
    fn the_first_refusals_of_a_record_are_named() {
        let mut named = Named::default();
        let mut key = Vec::new();
        let labels = [("job", "scrape"), ("service", "shop")];
        encode_key("http_total", labels.into_iter(), &mut key);
        for _ in 0..2 {
            named.begin();
            while named.has_room() {
                named.add(Reason::Late, &key);
            }
        }
        let shown: Vec<String> = named.refusals.kinds().iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 1);
        assert!(shown[0].starts_with("`http_total` of service `shop`: late 128 (older than"), "{shown:?}");
    }
}
