//! Fair shares: how much of what all senders of a source use together one of them may have.
//!
//! A peer is an IPv4 address or an IPv6 /64: one machine has all of a /64, so addresses within it are one sender.
//! Counts are atomics; the table of peers is locked when a connection comes or goes, never for a request. Knows no
//! protocol and no clock. Why these shares: docs/design/fairness.md.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// While other peers have open requests, a peer may hold this fraction of a resource.
const QUARTER: u64 = 4;
/// At all times a peer may hold at most so many times what stays free: alone it gets three quarters, and whoever comes
/// next finds the rest.
const TIMES_FREE: u64 = 3;
/// A peer that holds no more than this fraction of a resource ...
const LITTLE: u64 = 64;
/// ... gets it even if all is in use, up to this fraction more: one request may be as large as all that there is.
const RESERVE: u64 = 4;

/// What the peers of one source share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    /// Requests whose head was admitted, until they are answered.
    OpenRequests,
    /// Requests whose body is whole: inflated, decoded, or waiting for the engine.
    Permits,
    /// Bytes of memory of requests that are being read.
    ReadingBytes,
    /// Deliveries that wait for the engine.
    Deliveries,
    /// Their bytes.
    WaitingBytes,
}

impl Resource {
    const COUNT: usize = 5;
}

/// How much there is of a resource, and how much of it is in use.
#[derive(Debug)]
struct Pool {
    capacity: u64,
    /// A peer may hold so much whatever others do, if the pool has it; a first piece of any size as well.
    least: u64,
    used: AtomicU64,
}

/// Capacity of each resource, and what one peer may hold of it at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacities {
    pub(super) open_requests: u64,
    pub(super) permits: u64,
    pub(super) reading_bytes: u64,
    pub(super) deliveries: u64,
    pub(super) waiting_bytes: u64,
    /// Bytes that the largest single request takes.
    pub(super) request_bytes: u64,
}

/// The peers of one source.
#[derive(Debug)]
pub(super) struct Peers {
    pools: [Pool; Resource::COUNT],
    /// A peer is here as long as it has a connection, or anything of a pool.
    known: Mutex<HashMap<IpAddr, Weak<Peer>>>,
    /// Peers with an open request.
    busy: AtomicU64,
}

/// One sender, whatever the number of its connections.
#[derive(Debug)]
pub(super) struct Peer {
    address: IpAddr,
    used: [AtomicU64; Resource::COUNT],
    of: Arc<Peers>,
}

/// Something of a pool. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    peer: Arc<Peer>,
    resource: Resource,
    amount: u64,
}

/// Why a peer does not get what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// All of it is in use.
    Full,
    /// The peer has its share.
    OverShare,
}

/// The address that stands for a peer: an IPv4 address, or the first half of an IPv6 address.
pub(super) fn peer_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Whether a peer may hold `own` where all hold `total`, both counted with what it asks for.
pub(super) const fn is_fair(capacity: u64, own: u64, total: u64, others_wait: bool) -> bool {
    let free = capacity.saturating_sub(total);
    total <= capacity && own <= free.saturating_mul(TIMES_FREE) && (!others_wait || own <= capacity / QUARTER)
}

impl Peers {
    pub(super) fn new(capacities: Capacities) -> Arc<Self> {
        let Capacities { open_requests, permits, reading_bytes, deliveries, waiting_bytes, request_bytes } =
            capacities;
        let pool = |capacity, least| Pool { capacity, least, used: AtomicU64::new(0) };
        let pools = [
            pool(open_requests, 1),
            pool(permits, 1),
            pool(reading_bytes, request_bytes),
            pool(deliveries, 1),
            pool(waiting_bytes, 1),
        ];
        Arc::new(Self { pools, known: Mutex::default(), busy: AtomicU64::new(0) })
    }

    /// The peer behind an address.
    pub(super) fn peer(self: &Arc<Self>, address: IpAddr) -> Arc<Peer> {
        let address = peer_address(address);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = known.get(&address).and_then(Weak::upgrade) {
            return peer;
        }
        let peer = Arc::new(Peer { address, used: Default::default(), of: Arc::clone(self) });
        known.insert(address, Arc::downgrade(&peer));
        peer
    }

    /// Peers that have a connection or hold anything.
    pub(super) fn len(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How much of a resource is in use.
    pub(super) fn used(&self, resource: Resource) -> u64 {
        self.pools[resource as usize].used.load(Ordering::Relaxed)
    }
}

impl Peer {
    /// The address that stands for it.
    pub(super) const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether other peers have open requests.
    fn others_wait(&self) -> bool {
        let own = u64::from(self.used[Resource::OpenRequests as usize].load(Ordering::Relaxed) > 0);
        self.of.busy.load(Ordering::Relaxed) > own
    }

    /// Whether [`Peer::take`] would succeed now.
    pub(super) fn may_take(&self, resource: Resource, amount: u64) -> Result<(), Refusal> {
        let before = self.used[resource as usize].load(Ordering::Relaxed);
        let total = self.of.used(resource).saturating_add(amount);
        self.judge(resource, (before, before.saturating_add(amount)), total)
    }

    /// Whether it may go from the first to the second amount where all then hold `total`.
    fn judge(&self, resource: Resource, own: (u64, u64), total: u64) -> Result<(), Refusal> {
        let Pool { capacity, least, .. } = self.of.pools[resource as usize];
        let (before, after) = own;
        let is_little = after <= capacity / LITTLE;
        if total > if is_little { capacity + capacity / RESERVE } else { capacity } {
            return Err(Refusal::Full);
        }
        let is_owed = is_little || before == 0 || after <= least;
        let is_allowed = is_owed || is_fair(capacity, after, total, self.others_wait());
        if is_allowed { Ok(()) } else { Err(Refusal::OverShare) }
    }

    /// Takes some of a resource; never waits.
    pub(super) fn take(self: &Arc<Self>, resource: Resource, amount: u64) -> Result<Taken, Refusal> {
        let mut taken = Taken { peer: Arc::clone(self), resource, amount: 0 };
        taken.grow(amount)?;
        Ok(taken)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut known = self.of.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Meanwhile a new connection may have made another one of the same address.
        if known.get(&self.address).is_some_and(|peer| peer.strong_count() == 0) {
            known.remove(&self.address);
        }
    }
}

impl Taken {
    /// Takes more of it.
    pub(super) fn grow(&mut self, amount: u64) -> Result<(), Refusal> {
        let Self { peer, resource, .. } = self;
        let (own, total) = (&peer.used[*resource as usize], &peer.of.pools[*resource as usize].used);
        let before = own.fetch_add(amount, Ordering::Relaxed);
        if *resource == Resource::OpenRequests && before == 0 {
            peer.of.busy.fetch_add(1, Ordering::Relaxed);
        }
        let after = total.fetch_add(amount, Ordering::Relaxed).saturating_add(amount);
        self.amount += amount;
        let allowed = peer.judge(*resource, (before, before.saturating_add(amount)), after);
        if allowed.is_err() {
            self.shrink(amount);
        }
        allowed
    }

    /// How much it is.
    pub(super) const fn amount(&self) -> u64 {
        self.amount
    }

    /// Gives a part of it back.
    pub(super) fn shrink(&mut self, amount: u64) {
        let amount = amount.min(self.amount);
        let Self { peer, resource, .. } = self;
        peer.of.pools[*resource as usize].used.fetch_sub(amount, Ordering::Relaxed);
        let before = peer.used[*resource as usize].fetch_sub(amount, Ordering::Relaxed);
        if *resource == Resource::OpenRequests && before == amount && amount > 0 {
            peer.of.busy.fetch_sub(1, Ordering::Relaxed);
        }
        self.amount -= amount;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shrink(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(permits: u64) -> Arc<Peers> {
        Peers::new(Capacities {
            open_requests: 1_000,
            permits,
            reading_bytes: 1_000,
            deliveries: 8,
            waiting_bytes: 1_000,
            request_bytes: 300,
        })
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Takes one by one until there is no more.
    fn take_all(peer: &Arc<Peer>, resource: Resource) -> Vec<Taken> {
        std::iter::from_fn(|| peer.take(resource, 1).ok()).collect()
    }

    /// Scenario: one peer takes all permits that it gets; then others come, one after another, and do the same.
    /// Guarantee: it gets three quarters alone; each that comes later finds some, and while others have open requests
    /// none may take beyond a quarter.
    #[test]
    fn permits_are_shared() {
        let peers = peers(256);
        let first = peers.peer(v4(1));
        let _open = first.take(Resource::OpenRequests, 1).expect("there is room");
        let held = take_all(&first, Resource::Permits);
        assert_eq!(held.len(), 192);
        let mut others = Vec::new();
        for i in 2..20 {
            let peer = peers.peer(v4(i));
            let open = peer.take(Resource::OpenRequests, 1).expect("there is room");
            let held = take_all(&peer, Resource::Permits);
            assert!(!held.is_empty() && held.len() <= 64, "{} for peer {i}", held.len());
            others.push((open, held));
        }
        assert!(first.may_take(Resource::Permits, 1).is_err());
        drop(held);
        assert_eq!(take_all(&first, Resource::Permits).len(), 64, "a quarter while others wait");
        drop(others);
        assert_eq!(take_all(&first, Resource::Permits).len(), 192, "alone again");
    }

    /// Guarantee: a peer gets one of what there is one of, and bytes for its largest request, if they are free.
    #[test]
    fn a_share_is_never_nothing() {
        let one = peers(1);
        let peer = one.peer(v4(1));
        let held = take_all(&peer, Resource::Permits);
        assert_eq!((held.len(), peer.may_take(Resource::Permits, 1)), (1, Err(Refusal::Full)));
        let others = one.peer(v4(2));
        let _open = [&peer, &others].map(|peer| peer.take(Resource::OpenRequests, 1).expect("room"));
        let mut bytes = peer.take(Resource::ReadingBytes, 300).expect("its largest request fits");
        assert_eq!(bytes.grow(16), Err(Refusal::OverShare));
        assert_eq!(one.used(Resource::ReadingBytes), 300, "a refusal takes nothing");
        drop(bytes);
        assert_eq!(one.used(Resource::ReadingBytes), 0);
    }

    /// Scenario: one peer has a single delivery that takes all bytes that may wait; then others come with little.
    /// Guarantee: they find room in the reserve, which is bounded; the first peer does not.
    #[test]
    fn little_finds_room_in_the_reserve() {
        let peers = peers(4);
        let large = peers.peer(v4(1));
        let held = large.take(Resource::WaitingBytes, 1_000).expect("a first delivery always fits");
        assert_eq!(large.may_take(Resource::WaitingBytes, 1), Err(Refusal::Full));
        let little = |i| peers.peer(v4(i)).take(Resource::WaitingBytes, 15);
        let others: Vec<_> = (2..=255).map_while(|i| little(i).ok()).collect();
        assert_eq!(others.len(), 250 / 15);
        assert_eq!(
            peers.peer(v4(255)).may_take(Resource::WaitingBytes, 16),
            Err(Refusal::Full),
            "not little"
        );
        drop((held, others));
        assert_eq!(peers.used(Resource::WaitingBytes), 0);
    }

    /// Guarantee: an IPv6 /64 is one peer, and so is an IPv4 address however it is written; a peer is known as long as
    /// it holds anything, and forgotten afterwards.
    #[test]
    fn peers_are_addresses() {
        let peers = peers(4);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (one, other, is_one) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let (one, other) = (peers.peer(address(one)), peers.peer(address(other)));
            assert_eq!(Arc::ptr_eq(&one, &other), is_one, "{one:?} {other:?}");
        }
        assert_eq!(peers.len(), 0);
        let held = peers.peer(v4(1)).take(Resource::Deliveries, 1).expect("there is room");
        assert_eq!(peers.len(), 1, "it has no connection, but holds something");
        drop(held);
        assert_eq!(peers.len(), 0);
    }
}
