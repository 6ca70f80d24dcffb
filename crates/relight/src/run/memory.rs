//! How much memory this process may use, and what each budget of bytes gets of it.
//!
//! A budget that the config leaves at its default follows the limit; one that it sets stays, and is lowered, with a
//! warning, only where it is above what the process may use. The fractions are argued in docs/design/memory.md.

use std::sync::Arc;

use relight_config::Config;
use relight_core::source::Limits;
use relight_core::source::kafka::Fetch;
use relight_ingest::memory::MemoryBudget;
use relight_ingest::otlp;
use relight_runtime::{MemoryLimits, resident_bytes};

/// Of the limit, the part that is held by requests that are being read, ...
const READING: u64 = 4;
/// ... by those that wait for the engine, ...
const WAITING: u64 = 16;
/// ... and by the names, or the events, of one request.
const DECODED: u64 = 64;
/// One record of a topic: it is read whole, and decoded beside it.
const RECORD: u64 = 16;
/// What librdkafka keeps ready, for each topic.
const FETCHED: u64 = 32;
/// No budget is lowered below this: a source that takes no request at all is of no use.
const LEAST: u64 = 1 << 20;

/// What follows from the limit for one budget.
struct Lowered<'a> {
    limits: MemoryLimits,
    notices: &'a mut Vec<String>,
}

/// Bounds all budgets of a config by `limit`, the bytes that the process may use. Returns the edges of resident memory,
/// and what people should know of it.
pub(super) fn bound(config: &mut Config, limit: Option<u64>) -> (Option<MemoryLimits>, Vec<String>) {
    let mut notices = Vec::new();
    let Some(limits) = edges(config.daemon.memory, limit, &mut notices) else { return (None, notices) };
    let all = limits.limit_bytes();
    let mut lowered = Lowered { limits, notices: &mut notices };
    let usual = Limits::default();
    for source in &mut config.sources {
        let path = format!("sources.{}.limits", source.name);
        let of = source.kind.limits_mut();
        let reading = all / READING;
        for (key, value, default, share) in [
            ("max_reading_bytes", &mut of.max_reading_bytes, usual.max_reading_bytes, reading),
            ("max_waiting_bytes", &mut of.max_waiting_bytes, usual.max_waiting_bytes, all / WAITING),
            ("max_wire_bytes", &mut of.max_wire_bytes, usual.max_wire_bytes, reading / 4),
            ("max_inflated_bytes", &mut of.max_inflated_bytes, usual.max_inflated_bytes, reading / 2),
        ] {
            lowered.budget(&format!("{path}.{key}"), value, default, share);
        }
    }
    let usual = Fetch::default();
    for (name, kafka) in &mut config.kafka {
        let path = format!("sources.{name}.fetch");
        let of = &mut kafka.fetch;
        let (waiting, record) = (&mut of.max_waiting_bytes, &mut of.max_record_bytes);
        lowered.budget(&format!("{path}.max_waiting_bytes"), waiting, usual.max_waiting_bytes, all / WAITING);
        lowered.budget(&format!("{path}.max_record_bytes"), record, usual.max_record_bytes, all / RECORD);
        let mut queued = (of.queued_kbytes as usize) << 10;
        let default = (usual.queued_kbytes as usize) << 10;
        lowered.budget(&format!("{path}.queued_kbytes"), &mut queued, default, all / FETCHED);
        of.queued_kbytes = u32::try_from(queued >> 10).unwrap_or(of.queued_kbytes);
    }
    otlp::limit_decoded(usize::try_from((all / DECODED).max(LEAST)).unwrap_or(usize::MAX));
    (Some(limits), notices)
}

/// Room for the requests of all sources.
pub(super) fn budget(limits: MemoryLimits) -> MemoryBudget {
    MemoryBudget::new(limits.soft_bytes, limits.hard_bytes, Arc::new(resident_bytes))
}

/// The edges that the config sets, lowered to what the process may use; else those that follow from that.
fn edges(written: Option<(u64, u64)>, limit: Option<u64>, notices: &mut Vec<String>) -> Option<MemoryLimits> {
    let derived = limit.map(MemoryLimits::of);
    let Some((soft_bytes, hard_bytes)) = written else { return derived };
    let mut edges = MemoryLimits { soft_bytes, hard_bytes };
    if let (Some(derived), Some(limit)) = (derived, limit) {
        for (key, value, most) in [
            ("soft_bytes", &mut edges.soft_bytes, derived.soft_bytes),
            ("hard_bytes", &mut edges.hard_bytes, derived.hard_bytes),
        ] {
            if *value > most {
                notices.push(format!(
                    "memory.{key}: {value} is too much for a process that may use {limit} bytes: lowered to {most}"
                ));
                *value = most;
            }
        }
    }
    Some(edges)
}

impl Lowered<'_> {
    fn budget(&mut self, path: &str, value: &mut usize, default: usize, share: u64) {
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        if *value == default {
            *value = default.min(bytes(share.max(LEAST)));
            return;
        }
        let most = bytes(self.limits.soft_bytes.max(LEAST));
        if *value > most {
            let limit = self.limits.limit_bytes();
            self.notices.push(format!(
                "{path}: {value} is too much for a process that may use {limit} bytes: lowered to {most}"
            ));
            *value = most;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn config(text: &str) -> Config {
        relight_config::parse("test.yaml", text, &crate::REGISTRY, &|_| None).expect("a valid config")
    }

    fn limits_of(text: &str, limit: Option<u64>) -> (Limits, Vec<String>) {
        let mut config = config(text);
        let (_, notices) = bound(&mut config, limit);
        (*config.sources[0].kind.limits(), notices)
    }

    /// Guarantee: budgets that the config leaves alone follow the limit, without a word; with much memory, or none known,
    /// they are what the reference says.
    #[test]
    fn defaults_follow_the_limit() {
        for (limit, reading, waiting, wire, inflated) in [
            (256 * MIB, 64 * MIB, 16 * MIB, 16 * MIB, 32 * MIB),
            (512 * MIB, 128 * MIB, 32 * MIB, 16 * MIB, 64 * MIB),
            (64 * MIB, 16 * MIB, 4 * MIB, 4 * MIB, 8 * MIB),
        ] {
            let (limits, notices) = limits_of("", Some(limit));
            let found = [
                limits.max_reading_bytes,
                limits.max_waiting_bytes,
                limits.max_wire_bytes,
                limits.max_inflated_bytes,
            ];
            // The edges are whole bytes, so the limit that they stand for may be a few bytes below.
            let is_share = |(found, share): (usize, u64)| (share - 4..=share).contains(&(found as u64));
            let shares = [reading, waiting, wire, inflated];
            assert!(found.into_iter().zip(shares).all(is_share), "{limit}: {found:?} {shares:?}");
            assert_eq!(notices, Vec::<String>::new());
        }
        for limit in [None, Some(64 << 30)] {
            assert_eq!(limits_of("", limit), (Limits::default(), Vec::new()));
        }
    }

    /// Guarantee: what the config sets stays as long as the process may use as much; beyond it is lowered, with a warning
    /// that names the key.
    #[test]
    fn explicit_budgets_stay() {
        let text =
            |bytes: u64| format!("sources: {{otlp: {{type: otlp, limits: {{max_reading_bytes: {bytes}}}}}}}");
        let (limits, notices) = limits_of(&text(150 * MIB), Some(256 * MIB));
        assert_eq!((limits.max_reading_bytes as u64, notices.len()), (150 * MIB, 0));
        let (limits, notices) = limits_of(&text(300 * MIB), Some(256 * MIB));
        assert!((limits.max_reading_bytes as u64) < 256 * MIB);
        let [notice] = &notices[..] else { panic!("{notices:?}") };
        assert!(
            notice.starts_with("sources.otlp.limits.max_reading_bytes: 314572800 is too much"),
            "{notice}"
        );
    }

    /// Guarantee: `memory` of the config is a limit as well, and is itself lowered to what the process may use.
    #[test]
    fn written_edges_are_a_limit() {
        let written = format!("memory: {{soft_bytes: {}, hard_bytes: {}}}", 200 * MIB, 230 * MIB);
        let (limits, notices) = limits_of(&written, Some(64 << 30));
        assert_eq!((limits.max_reading_bytes as u64 / MIB, notices.len()), (63, 0));
        let mut config = config(&written);
        let (edges, notices) = bound(&mut config, Some(128 * MIB));
        let edges = edges.expect("there is a limit");
        assert!(edges.hard_bytes <= 128 * MIB && edges.soft_bytes < edges.hard_bytes, "{edges:?}");
        assert_eq!(notices.len(), 2, "{notices:?}");
    }
}
