//! Open files: each connection is one, and so are the ledger, a snapshot, and the socket that a page leaves by.
//!
//! The bound is raised as far as this process may. Where that is little, senders get less of it, never the rest.

use relight_config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than all connections of a machine's senders.
const ENOUGH: u64 = 65_536;
/// What is open beside connections of senders: 20 files at rest, and journals, a snapshot, and who looks at `/metrics`.
const OWN: usize = 40;
/// A request on its way, or a program's pipes.
const EACH_RESPONDER: usize = 4;
/// Its brokers.
const EACH_KAFKA: usize = 32;

/// Leaves room for what is not a sender's connection; what had to give way, in words.
pub(super) fn bound(config: &mut Config) -> Option<String> {
    let files = raise();
    let addresses: usize = config.sources.iter().map(|source| source.kind.listens().len()).sum();
    let own = OWN + EACH_RESPONDER * config.responders.len() + EACH_KAFKA * config.kafka.len();
    let room = (usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(own) / addresses.max(1)).max(1);
    let mut is_less = false;
    for source in &mut config.sources {
        let most = &mut source.kind.limits_mut().max_connections;
        is_less |= *most > room;
        *most = room.min(*most);
    }
    is_less.then(|| {
        format!(
            "{files} files may be open at a time, which leaves room for {room} connections to each address (`max_connections`): raise it by `ulimit -n` or LimitNOFILE="
        )
    })
}

fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (now, most) = (current.unwrap_or(ENOUGH), maximum.unwrap_or(ENOUGH).min(ENOUGH));
    let may = now < most && setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).is_ok();
    if may { most } else { now }
}
