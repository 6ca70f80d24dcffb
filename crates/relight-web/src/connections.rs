//! Who is connected, and who gives way to a new connection: nobody waits for a place.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::AbortHandle;

/// Connections at a time; beyond, each new one ends an old one.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// One connection.
pub(crate) struct Client {
    pub(crate) peer: IpAddr,
    /// Whether it has ever brought a request.
    pub(crate) asked: Arc<AtomicBool>,
    pub(crate) task: AbortHandle,
}

/// The open connections, by the order in which they came.
#[derive(Default)]
pub(crate) struct Connections {
    open: BTreeMap<u64, Client>,
}

impl Connections {
    pub(crate) fn add(&mut self, number: u64, client: Client) {
        self.open.insert(number, client);
    }

    pub(crate) fn remove(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// Ends a connection if there are as many as there may be: of the peer that has most of them one that has asked for
    /// nothing, the oldest first.
    pub(crate) fn make_room(&mut self) {
        if self.open.len() < MAX_CONNECTIONS {
            return;
        }
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for client in self.open.values() {
            *counts.entry(client.peer).or_default() += 1;
        }
        let rank = |(number, client): &(&u64, &Client)| {
            let has_asked = client.asked.load(Ordering::Relaxed);
            (std::cmp::Reverse(counts[&client.peer]), has_asked, **number)
        };
        let victim = self.open.iter().min_by_key(rank).map(|(number, _)| *number);
        if let Some(client) = victim.and_then(|number| self.open.remove(&number)) {
            client.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: one peer takes all connections, of which it uses every second; then others come.
    /// Guarantee: its silent ones give way, the oldest first; the connections of those that have few are kept.
    #[tokio::test]
    async fn the_largest_peer_gives_way() {
        let mut connections = Connections::default();
        let mut add = |number: u64, peer: u8, asked: bool| {
            connections.make_room();
            let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
            let asked = Arc::new(AtomicBool::new(asked));
            connections.add(number, Client { peer: [127, 0, 0, peer].into(), asked, task });
        };
        let all = MAX_CONNECTIONS as u64;
        (0..all).for_each(|number| add(number, 1, number % 2 == 0));
        (all..all + 40).for_each(|number| add(number, 2 + (number % 20) as u8, false));
        assert_eq!(connections.open.len(), MAX_CONNECTIONS);
        let of_first = connections.open.range(..all).map(|(number, _)| *number);
        let expected: Vec<u64> = (0..all).filter(|number| number % 2 == 0 && *number >= 16).collect();
        assert_eq!(of_first.collect::<Vec<_>>(), expected);
    }
}
