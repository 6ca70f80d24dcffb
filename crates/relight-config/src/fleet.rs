//! The fleet limit as it is written becomes the one that Control measures by.

use relight_core::Span;
use relight_core::rule::FleetLimit;
use serde_json::Value;

use crate::raw;
use crate::report::Report;
use crate::resolve::read;

/// Actions are kept in memory for so long.
const LONGEST_WINDOW: Span = Span::from_secs(24 * 3600);

/// The limit as written; `None` if it is off, or faulty.
pub(crate) fn limit(written: Value, report: &mut Report) -> Option<FleetLimit> {
    if written.as_str() == Some("off") {
        return None;
    }
    let raw::FleetLimit { actions, within, share, minimum } = read(written, "fleet_limit", report)?;
    if within <= Span::ZERO || within > LONGEST_WINDOW {
        report.error(
            "fleet_limit.within",
            format!("{within} is no window: longer than nothing, at most {LONGEST_WINDOW}"),
        );
    }
    let share_percent = share.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let share_percent = share_percent.filter(|share| *share > 0.0 && *share <= 100.0);
    if share_percent.is_none() {
        report.error(
            "fleet_limit.share",
            format!("`{share}` is no share: above 0% and at most 100%, such as 20%"),
        );
    }
    Some(FleetLimit { actions, within, share_percent: share_percent?, minimum })
}
