//! What befalls incidents and their actions, as the daemon's log tells it: a line each, in the words of a replay's summary.
//!
//! Labels, plans and answers are foreign text: escaped and cut, so that a line stays a line.

use relight_core::Timestamp;
use relight_core::incident::{Action, Incident};
use relight_runtime::{MoreNews, News};

use crate::output::{BOLD, RED, visible};
use crate::words::{REASON_SHOWN, beside, count, grouped, left, resolution, rough, shown, step};

/// Characters that are shown of a change.
const CHANGE_SHOWN: usize = 400;

/// One line, with colours.
pub(super) fn line(news: &News) -> String {
    match news {
        News::Opened(incident) => opened(incident),
        News::Escalated(incident, why) => escalated(incident, why),
        News::Over(incident) => over(incident),
        News::Step(action) => of_step(action),
        News::More(more) => too_many(more),
    }
}

fn opened(incident: &Incident) -> String {
    let Incident { onset, detected, .. } = incident;
    let opened = match incident.episode {
        0 | 1 => "opened".to_owned(),
        n => format!("opened again, episode {n}"),
    };
    let left = incident.evidence.first().map_or_else(String::new, |row| format!(": {}", left(row)));
    let detected =
        detected.map_or_else(String::new, |at| format!(", detected {at}, {}", after(incident, at)));
    // The newest change, which is the first thing to look at. Log records are too many to be news.
    let change = incident.context.iter().rev().find(|event| !event.is_log());
    let change = change
        .map_or_else(String::new, |event| format!("; {}", visible(&beside(event, *onset), CHANGE_SHOWN)));
    format!("{} {RED}{opened}{RED:#}{left}; onset {onset}{detected}{change}", named(incident))
}

fn escalated(incident: &Incident, why: &str) -> String {
    format!("{} {RED}escalated{RED:#}, a human has to look: {}", named(incident), visible(why, REASON_SHOWN))
}

fn over(incident: &Incident) -> String {
    let how = incident.resolution.map_or_else(|| "over".to_owned(), resolution);
    let when = match (incident.recovered, incident.resolved) {
        (Some(well), _) => format!("; back in its band {well}, {}", after(incident, well)),
        (None, Some(at)) => format!("; {at}, {}", after(incident, at)),
        (None, None) => String::new(),
    };
    format!("{} {how}{when}", named(incident))
}

fn of_step(action: &Action) -> String {
    let Action { incident, rule, .. } = action;
    format!("incident {BOLD}{incident}{BOLD:#} {rule}: {}", step(action))
}

fn too_many(more: &MoreNews) -> String {
    let MoreNews { opened, escalated, over, steps } = more;
    format!(
        "incidents: and {} more within a minute, too many to tell: {} opened, {} escalated, {} over, {} of their actions",
        grouped(more.total()),
        grouped(*opened),
        grouped(*escalated),
        grouped(*over),
        count(*steps, "step"),
    )
}

fn named(incident: &Incident) -> String {
    let Incident { id, rule, group, .. } = incident;
    format!("incident {BOLD}{id}{BOLD:#} {rule} {}", shown(group))
}

fn after(incident: &Incident, at: Timestamp) -> String {
    format!("{} after onset", rough(at.since(incident.onset)))
}

#[cfg(test)]
mod tests {
    use relight_core::Labels;
    use relight_core::record::Event;

    use super::*;

    /// Scenario: labels and a reason with characters that move a terminal's cursor, and far too long ones.
    /// Guarantee: a line stays a line, and has a bound.
    #[test]
    fn h07_foreign_text_stays_on_its_line() {
        let label = |key: &str, value: String| (key.to_owned(), value);
        let group =
            Labels::new([label("a\u{1b}[2J\nb", "\u{202E}x".to_owned()), label("z", "y".repeat(5_000))]);
        let incident = Incident::new("slow", group, Timestamp::from_secs(0));
        let line = line(&News::Escalated(Box::new(incident), "why\r".repeat(1_000)));
        let plain = anstream::adapter::strip_str(&line).to_string();
        assert!(!plain.contains(|c: char| c.is_control() || c == '\u{202E}'), "{plain}");
        assert!(plain.contains(r#" slow {a\u{1b}[2J\nb="\u{202e}x",z="yyy"#), "{plain}");
        assert!(
            plain.contains(r"escalated, a human has to look: why\rwhy") && plain.len() < 1_000,
            "{plain}"
        );
    }

    /// Scenario: two deploys and a log record about an incident's onset.
    /// Guarantee: the line that opens it ends with the newest change.
    #[test]
    fn an_opening_names_the_newest_change() {
        let mut incident = Incident::new("slow", Labels::default(), Timestamp::from_secs(100));
        let event = |at, kind: &str, version: &str| Event {
            at: Timestamp::from_secs(at),
            kind: kind.to_owned(),
            labels: Labels::new([("version".to_owned(), version.to_owned())]),
            body: String::new(),
        };
        assert!(opened(&incident).ends_with("; onset 1970-01-01T00:01:40Z"), "{}", opened(&incident));
        incident.context = vec![event(40, "deploy", "v2"), event(90, "deploy", "v3"), event(95, "log", "v3")];
        let line = opened(&incident);
        assert!(line.ends_with(r#"; 10s before onset: deploy {version="v3"}"#), "{line}");
    }

    /// Guarantee: what was too much is told by its numbers.
    #[test]
    fn a_storm_is_told_by_its_numbers() {
        let more = MoreNews { opened: 1_200, escalated: 2, over: 0, steps: 1 };
        let told = "incidents: and 1,203 more within a minute, too many to tell: 1,200 opened, 2 escalated, 0 over, 1 step of their actions";
        assert_eq!(line(&News::More(more)), told);
    }
}
