//! Whether partitions can be reached and are read to their end, as the client's statistics have it.
//!
//! Statistics come by the client's own timer, also while no broker answers. Nothing is decided here about what
//! a partition does next.

use std::collections::BTreeMap;

use serde::Deserialize;

/// How often statistics come.
pub(super) const PULSE_MS: u64 = 1_000;
/// A leader that has sent nothing for so long does not answer: fetches wait 50 ms.
const SILENT_US: i64 = 5_000_000;
/// A leader that has sent something within this has answered a fetch.
const FRESH_US: i64 = 2_000_000;

/// What relight reads of the statistics.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Statistics {
    #[serde(default)]
    brokers: BTreeMap<String, Broker>,
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

#[derive(Debug, Deserialize)]
struct Broker {
    nodeid: i32,
    state: String,
    rxidle: i64,
}

#[derive(Debug, Deserialize)]
struct Topic {
    partitions: BTreeMap<i32, Partition>,
}

/// One partition, in offsets; -1001 stands for "not known".
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Partition {
    leader: i32,
    /// What is fetched next.
    next_offset: i64,
    /// The last end that was reported.
    eof_offset: i64,
    /// The end of what can be read.
    ls_offset: i64,
    /// Records that were fetched and not taken, of all partitions.
    fetchq_cnt: i64,
}

/// How a partition's leader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leader {
    /// It answered just now.
    Answers,
    /// It may be well: there is a connection, and nothing says otherwise.
    Quiet,
    /// It cannot be reached.
    Away(String),
}

impl Statistics {
    pub(super) fn partition(&self, topic: &str, partition: i32) -> Option<Partition> {
        self.topics.get(topic)?.partitions.get(&partition).copied()
    }

    /// How the leader of a partition is. `fetching`: something is asked of it all the time.
    pub(super) fn leader(&self, topic: &str, partition: i32, fetching: bool) -> Leader {
        let Some(leader) = self.partition(topic, partition).map(|partition| partition.leader) else {
            return Leader::Away(self.nobody());
        };
        if leader < 0 {
            return Leader::Away(self.nobody());
        }
        let Some(broker) = self.brokers.values().find(|broker| broker.nodeid == leader) else {
            return Leader::Away(format!("its leader, broker {leader}, is not known"));
        };
        if !matches!(&*broker.state, "UP" | "UPDATE") {
            return Leader::Away(format!("its leader, broker {leader}, is {}", broker.state));
        }
        match broker.rxidle {
            0..FRESH_US => Leader::Answers,
            SILENT_US.. if fetching => Leader::Away(format!("its leader, broker {leader}, does not answer")),
            _ => Leader::Quiet,
        }
    }

    /// Why a partition has no leader that could be named.
    fn nobody(&self) -> String {
        if self.brokers.values().any(|broker| matches!(&*broker.state, "UP" | "UPDATE")) {
            "it has no leader".to_owned()
        } else {
            "no broker can be reached".to_owned()
        }
    }
}

impl Partition {
    /// Whether the end that was reported last is still where reading stands.
    pub(super) const fn is_at_end(&self) -> bool {
        self.eof_offset >= 0 && self.eof_offset == self.next_offset
    }

    /// What is fetched next.
    pub(super) const fn fetched(&self) -> i64 {
        self.next_offset
    }

    /// Whether there is more than was taken.
    pub(super) const fn has_more(&self) -> bool {
        self.fetchq_cnt > 0 || (self.next_offset >= 0 && self.ls_offset > self.next_offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(leader: i32, state: &str, rxidle: i64) -> Statistics {
        let json = format!(
            r#"{{"name":"x","brokers":{{"b:1/1":{{"nodeid":1,"state":"{state}","rxidle":{rxidle},"tx":3}},
                "boot":{{"nodeid":-1,"state":"DOWN","rxidle":-1}}}},
                "topics":{{"t":{{"topic":"t","partitions":{{"0":{{"leader":{leader},"next_offset":7,"eof_offset":7,
                "ls_offset":7,"fetchq_cnt":0}},"-1":{{"leader":-1,"next_offset":0,"eof_offset":-1001,"ls_offset":-1001,
                "fetchq_cnt":0}}}}}}}}}}"#
        );
        serde_json::from_str(&json).expect("statistics of the shape that librdkafka writes")
    }

    /// Scenario: leaders in each state that the client reports.
    /// Guarantee: only one that has just answered vouches for the end of a partition, and a paused partition's
    /// leader is not taken for dead because nothing is asked of it.
    #[test]
    fn leaders_are_told_apart() {
        let away = |why: &str| Leader::Away(why.to_owned());
        for (leader, state, rxidle, fetching, expected) in [
            (1, "UP", 400_000, true, Leader::Answers),
            (1, "UP", 3_000_000, true, Leader::Quiet),
            (1, "UP", -1, true, Leader::Quiet),
            (1, "UP", 6_000_000, true, away("its leader, broker 1, does not answer")),
            (1, "UP", 6_000_000, false, Leader::Quiet),
            (1, "CONNECT", 10, true, away("its leader, broker 1, is CONNECT")),
            (-1, "UP", 10, true, away("it has no leader")),
            (-1, "DOWN", 10, true, away("no broker can be reached")),
            (2, "UP", 10, true, away("its leader, broker 2, is not known")),
        ] {
            assert_eq!(
                statistics(leader, state, rxidle).leader("t", 0, fetching),
                expected,
                "{leader} {state}"
            );
        }
        assert_eq!(statistics(1, "UP", 1).leader("t", 5, true), away("it has no leader"));
        assert!(statistics(1, "UP", 1).partition("t", 0).is_some_and(|p| p.is_at_end() && !p.has_more()));
    }
}
