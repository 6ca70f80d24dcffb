//! How many connections one address takes, how many of them a peer may have, and which idle one gives way to a new one.
//!
//! Knows no protocol and no socket: a connection is what happened on it last.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::fair::{is_fair, peer_address};
use super::stats::{SourceStats, add, sub};

/// For the first request's headers to arrive, and for TLS to be agreed on.
pub(super) const HEADERS: Duration = Duration::from_secs(10);
/// A connection without a request is closed after this.
pub(super) const IDLE: Duration = Duration::from_mins(1);
/// After this a connection is asked to close, so that senders spread over what has come up since.
pub(super) const MAX_AGE: Duration = Duration::from_mins(30);
/// A peer that has all the connections it may have gets a new one for one that brought no request for so long, or ...
const SILENT: Duration = Duration::from_secs(2);
/// ... for one whose last request ended so long ago.
const RESTING: Duration = Duration::from_secs(15);
/// Of the connections that there may be, the part that may be evicted and not closed yet.
const CLOSING: usize = 8;

/// When something last happened on a connection.
pub(super) struct Activity {
    pub(super) since: Instant,
    pub(super) begun: AtomicU64,
    running: AtomicUsize,
    /// Milliseconds from `since` to when the last request ended.
    ended_ms: AtomicU64,
    evicted: Notify,
}

/// A request that is being answered.
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let (begun, ended_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        let (running, evicted) = (AtomicUsize::new(0), Notify::new());
        Arc::new(Self { since: Instant::now(), begun, running, ended_ms, evicted })
    }

    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Whether it never brought a request.
    pub(super) fn is_silent(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == 0
    }

    fn ended(&self) -> Instant {
        self.since + Duration::from_millis(self.ended_ms.load(Ordering::Relaxed))
    }

    /// When the connection is to be closed if nothing more happens on it.
    pub(super) fn deadline(&self) -> Instant {
        let patience = match (self.is_silent(), self.running.load(Ordering::Relaxed)) {
            (true, _) => self.since + HEADERS,
            (false, 0) => self.ended() + IDLE,
            (false, _) => Instant::now() + IDLE,
        };
        patience.min(self.since + MAX_AGE)
    }

    /// Since when nothing is asked on it; `None` while something is.
    fn idle_since(&self) -> Option<Instant> {
        (self.running.load(Ordering::Relaxed) == 0).then(|| self.ended())
    }

    /// Returns once the connection has to make room for another one.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.ended_ms.store(self.0.since.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections to one address.
pub(super) struct ConnectionLimit {
    max: usize,
    max_per_peer: usize,
    stats: Arc<SourceStats>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    of_peer: HashMap<IpAddr, usize>,
    /// In the order in which they came.
    all: BTreeMap<u64, (IpAddr, Arc<Activity>)>,
    /// Evicted, and not closed yet.
    closing: usize,
}

/// Leave for one connection. Given back when it is dropped.
pub(super) struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    number: u64,
    pub(super) activity: Arc<Activity>,
}

impl ConnectionLimit {
    pub(super) fn new(max: usize, max_per_peer: usize, stats: Arc<SourceStats>) -> Arc<Self> {
        Arc::new(Self { max, max_per_peer, stats, open: Mutex::default() })
    }

    /// Admits a connection, if need be in place of an idle one.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        let peer = peer_address(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_room(&open, peer) {
            let victim = self.victim(&open, peer)?;
            let (_, activity) = open.remove(victim)?;
            open.closing += 1;
            add(&self.stats.evicted, 1);
            activity.evicted.notify_one();
        }
        let (number, activity) = (open.next, Activity::new());
        open.next += 1;
        *open.of_peer.entry(peer).or_default() += 1;
        open.all.insert(number, (peer, Arc::clone(&activity)));
        add(&self.stats.accepted, 1);
        add(&self.stats.connections, 1);
        Some(ConnectionPermit { limit: Arc::clone(self), number, activity })
    }

    /// Whether a peer may have one more, by its own limit and by its share.
    fn has_room(&self, open: &Open, peer: IpAddr) -> bool {
        open.all.len() < self.max && !self.is_sated(open, peer)
    }

    /// Whether a peer has as many as it may have.
    fn is_sated(&self, open: &Open, peer: IpAddr) -> bool {
        let own = open.of(peer);
        let (after, total) = (own as u64 + 1, open.all.len() as u64 + 1);
        // Fairness is for when there is little left; a peer's own limit is what bounds it otherwise.
        own >= self.max_per_peer || own > 0 && !is_fair(self.max as u64, after, total, false)
    }

    /// The connection that makes room for a new one of this peer: of a peer that has all that it may have, one of its own
    /// that has been idle for a while; otherwise an idle one of the peer that has most.
    fn victim(&self, open: &Open, peer: IpAddr) -> Option<u64> {
        if open.closing > self.max / CLOSING {
            return None;
        }
        let now = Instant::now();
        let (from, is_own) = if self.is_sated(open, peer) { (peer, true) } else { (open.largest()?, false) };
        if !is_own && open.of(from) <= open.of(peer) + 1 {
            return None;
        }
        let of_peer = open.all.iter().filter(|(_, (owner, _))| *owner == from);
        let idle = of_peer.filter_map(|(number, (_, activity))| {
            let since = activity.idle_since()?;
            let patience = match (is_own, activity.is_silent()) {
                (false, _) => Duration::ZERO,
                (true, true) => SILENT,
                (true, false) => RESTING,
            };
            (now.saturating_duration_since(since) >= patience)
                .then(|| (!activity.is_silent(), since, *number))
        });
        idle.min().map(|(.., number)| number)
    }
}

impl Open {
    fn of(&self, peer: IpAddr) -> usize {
        self.of_peer.get(&peer).copied().unwrap_or(0)
    }

    /// The peer that has most connections; of several the one whose connection is oldest.
    fn largest(&self) -> Option<IpAddr> {
        let mut largest = None;
        for (peer, _) in self.all.values() {
            if largest.is_none_or(|known| self.of(*peer) > self.of(known)) {
                largest = Some(*peer);
            }
        }
        largest
    }

    fn remove(&mut self, number: u64) -> Option<(IpAddr, Arc<Activity>)> {
        let (peer, activity) = self.all.remove(&number)?;
        match self.of_peer.get_mut(&peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.of_peer.remove(&peer);
            }
        }
        Some((peer, activity))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limit.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.remove(self.number).is_none() {
            open.closing -= 1;
        }
        sub(&self.limit.stats.connections, 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::super::accept::tests::in_paused_time;
    use super::*;

    fn limit(max: usize, max_per_peer: usize) -> Arc<ConnectionLimit> {
        ConnectionLimit::new(max, max_per_peer, Arc::default())
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_evicted(permit: &ConnectionPermit) -> bool {
        !permit.limit.open.lock().expect("no panic").all.contains_key(&permit.number)
    }

    /// Scenario: a peer has all the connections that it may have: one rests, one is silent, one is being answered.
    /// Guarantee: a new one is refused at first; later the silent one gives way, then the one that rests, never the one
    /// that is being answered.
    #[test]
    fn a_peers_idle_connections_give_way() {
        in_paused_time(async {
            let limit = limit(100, 3);
            let [rests, busy, silent] = [(); 3].map(|()| limit.admit(peer(1)).expect("there is room"));
            drop(rests.activity.begin());
            let answering = busy.activity.begin();
            assert!(limit.admit(peer(1)).is_none(), "all are young");
            sleep(SILENT).await;
            let first = limit.admit(peer(1)).expect("the silent one gives way");
            assert!(is_evicted(&silent) && !is_evicted(&rests) && !is_evicted(&busy));
            drop(first.activity.begin());
            assert!(limit.admit(peer(1)).is_none(), "it has not rested for long");
            sleep(RESTING).await;
            let second = limit.admit(peer(1)).expect("the one that rests gives way");
            assert!(is_evicted(&rests) && !is_evicted(&busy) && !is_evicted(&first));
            drop((answering, second));
            assert_eq!(limit.stats.evicted.load(Ordering::Relaxed), 2);
        });
    }

    /// Scenario: many peers have taken all connections; one has most of them; then a new peer comes.
    /// Guarantee: it gets one, in place of an idle one of the peer that has most.
    #[test]
    fn the_largest_peer_gives_way_to_a_new_one() {
        in_paused_time(async {
            let limit = limit(16, 100);
            let mut held = Vec::new();
            while let Some(permit) = limit.admit(peer(1)) {
                held.push(permit);
            }
            assert_eq!(held.len(), 12, "three quarters");
            let mut others: Vec<_> = (2..6).map(|i| limit.admit(peer(i)).expect("some is left")).collect();
            others.push(limit.admit(peer(6)).expect("the largest gives way"));
            assert_eq!(held.iter().position(is_evicted), Some(0), "the oldest of it");
            assert!(!others.iter().any(is_evicted));
            let _answering: Vec<_> = held.iter().map(|permit| permit.activity.begin()).collect();
            assert!(limit.admit(peer(7)).is_none(), "none of its connections is idle");
        });
    }

    /// Scenario: evicted connections that do not close.
    /// Guarantee: there is a bound on them: beyond it new connections are refused.
    #[test]
    fn evicted_connections_are_bounded() {
        in_paused_time(async {
            let limit = limit(64, 4);
            let _held = [(); 4].map(|()| limit.admit(peer(1)).expect("there is room"));
            let mut more = Vec::new();
            for _ in 0..100 {
                sleep(SILENT).await;
                more.extend(limit.admit(peer(1)));
            }
            assert_eq!(more.len(), 64 / CLOSING + 1);
        });
    }

    /// Scenario: a connection says nothing, then has a request, is idle, and grows old.
    /// Guarantee: each has its own patience, and none outlives the age.
    #[test]
    fn patience_depends_on_what_happened() {
        in_paused_time(async {
            let activity = Activity::new();
            let start = activity.since;
            assert_eq!(activity.deadline(), start + HEADERS);
            sleep(Duration::from_secs(3)).await;
            let busy = activity.begin();
            assert_eq!(activity.deadline(), start + Duration::from_secs(3) + IDLE);
            sleep(Duration::from_secs(4)).await;
            drop(busy);
            sleep(Duration::from_secs(5)).await;
            assert_eq!(activity.deadline(), start + Duration::from_secs(7) + IDLE);
            let _busy = activity.begin();
            sleep(MAX_AGE).await;
            assert_eq!(activity.deadline(), start + MAX_AGE);
        });
    }
}
