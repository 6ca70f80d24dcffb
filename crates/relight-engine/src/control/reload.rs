//! Other rules for what is under way: a reload, or a start under another config.
//!
//! Incidents, actions, deadlines, cooldowns and holds stay as they are, and nothing is sent because of it. Only what no rule
//! speaks for any more ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use relight_core::incident::{Incident, LedgerWrite, Resolution};
use relight_core::rule::{RuleSpec, Settings};
use relight_core::{Span, Timestamp};

use super::{Control, Effect, Out, rules_of};

impl Control {
    /// Other rules from the next turn on. Incidents of a rule that is gone end with that turn; those of one that groups
    /// otherwise end now, since no row falls into their group any more.
    pub fn reload(
        &mut self,
        settings: Arc<Settings>,
        now: Timestamp,
        writes: &mut Vec<LedgerWrite>,
        effects: &mut Vec<Effect>,
    ) {
        let mut out = Out::new(effects);
        self.run_deadlines(now.minus(Span::from_ns(1)), &mut out);
        self.move_control(now);
        let groups_otherwise = |rule: &&RuleSpec| {
            let mut before = self.settings.rules.iter();
            before.any(|before| before.name == rule.name && before.group_by != rule.group_by)
        };
        let regrouped = settings.rules.iter().filter(groups_otherwise);
        let regrouped: BTreeSet<String> = regrouped.map(|rule| rule.name.clone()).collect();
        self.retire(&mut out, |incident| regrouped.contains(&incident.rule));
        self.rules_of = rules_of(&settings);
        self.settings = settings;
        self.index_groups();
        let rules = self.settings.rules.len();
        out.audit(self.now(), "config_loaded", "", format!("{rules} rules"));
        self.commit(out, writes);
    }

    /// Live incidents whose rule is gone.
    pub(super) fn retire_orphans(&mut self, out: &mut Out<'_>) {
        let settings = Arc::clone(&self.settings);
        let known: BTreeSet<&str> = settings.rules.iter().map(|rule| rule.name.as_str()).collect();
        self.retire(out, |incident| !known.contains(incident.rule.as_str()));
    }

    fn retire(&mut self, out: &mut Out<'_>, is_gone: impl Fn(&Incident) -> bool) {
        let gone = self.incidents.values().filter(|incident| incident.is_live() && is_gone(incident));
        let gone: Vec<String> = gone.map(|incident| incident.id.clone()).collect();
        for id in gone {
            let Some(mut incident) = self.incidents.remove(&id) else { continue };
            self.resolve(&mut incident, self.now(), Resolution::RuleRemoved, out);
            self.put(incident, out);
        }
    }
}
