//! Resident memory, and what is done about it: sources are held back, new series are refused.
//!
//! Measured, not accounted for: what counts is what the kernel would kill for. Pages, the outbox and the ledger are
//! never touched. Where no edge is reached nothing depends on any of this.

use std::fs::read_to_string;
use std::path::Path;

use relight_core::telemetry::{self as metrics, Posted, Sample};
use relight_core::{Span, Timestamp};
use relight_ingest::live::Brake;

use super::Live;

/// Time between two looks: a flood of 100 MB/s adds a few percent of a small machine's memory.
const EVERY: Span = Span::from_ns(100_000_000);
/// How long sources are held back at the soft edge for what is queued and open to be worked off.
const HOLD_FOR: Span = Span::from_secs(10);
/// An edge is left when memory is this fraction of it below, so that it is not crossed with every request.
const BELOW: u64 = 20;

/// How much memory may be resident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// At this sources are held back.
    pub soft_bytes: u64,
    /// At this new series are refused as well.
    pub hard_bytes: u64,
}

impl MemoryLimits {
    /// Four fifths and nine tenths of what the cgroup of this process may use; `None` where it may use all there is.
    pub fn of_cgroup() -> Option<Self> {
        let all = cgroup_limit(&read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup"))?;
        Some(Self { soft_bytes: all / 5 * 4, hard_bytes: all / 10 * 9 })
    }
}

/// The lowest `memory.max` on the way from a process' cgroup to the root.
fn cgroup_limit(membership: &str, root: &Path) -> Option<u64> {
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = root.join(own.trim_start_matches('/'));
    let limit = |dir: &Path| read_to_string(dir.join("memory.max")).ok()?.trim().parse().ok();
    own.ancestors().take_while(|dir| dir.starts_with(root)).filter_map(limit).min()
}

/// Bytes of this process that are in memory.
pub fn resident_bytes() -> Option<u64> {
    // Not `statm`, whose unit is the size of a page: that is not the same on all machines.
    let status = read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
    Some(kib.trim().parse::<u64>().ok()? << 10)
}

/// What is done about memory at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Well,
    /// Over the soft edge: sources are held back, while that may help.
    Held {
        since: Timestamp,
    },
    /// It did not help, so what has grown is what is known. Holding the sources back any longer would starve the
    /// series that are known for those that are new: sources go on, and new series are refused.
    Full,
    /// Over the hard edge: both.
    Hard,
}

impl Level {
    const fn holds(self) -> bool {
        matches!(self, Self::Held { .. } | Self::Hard)
    }

    const fn shuts(self) -> bool {
        matches!(self, Self::Full | Self::Hard)
    }

    fn next(self, resident: u64, limits: MemoryLimits, now: Timestamp) -> Self {
        let MemoryLimits { soft_bytes, hard_bytes } = limits;
        let (soft_end, hard_end) = (soft_bytes - soft_bytes / BELOW, hard_bytes - hard_bytes / BELOW);
        if resident >= hard_bytes || self == Self::Hard && resident >= hard_end {
            return Self::Hard;
        }
        match self {
            Self::Well if resident >= soft_bytes => Self::Held { since: now },
            Self::Well => Self::Well,
            _ if resident < soft_end => Self::Well,
            Self::Held { since } if now < since.plus(HOLD_FOR) => self,
            Self::Held { .. } | Self::Full | Self::Hard => Self::Full,
        }
    }
}

/// Watches memory for a live run.
pub(super) struct Memory {
    limits: MemoryLimits,
    brake: Brake,
    meter: Meter,
    level: Level,
    resident: u64,
    next: Timestamp,
}

/// Tells how many bytes are resident, if that can be told.
pub type Meter = Box<dyn Fn() -> Option<u64> + Send>;

impl Memory {
    pub(super) fn new(limits: MemoryLimits, brake: Brake, meter: Meter) -> Self {
        Self { limits, brake, meter, level: Level::Well, resident: 0, next: Timestamp::MIN }
    }

    /// Looks, if it is time. What a person is told, if that changes anything.
    pub(super) fn look(&mut self, now: Timestamp) -> Option<String> {
        if now < self.next {
            return None;
        }
        self.next = now.plus(EVERY);
        self.resident = (self.meter)()?;
        let before = self.level;
        self.level = before.next(self.resident, self.limits, now);
        if (before.holds(), before.shuts()) == (self.level.holds(), self.level.shuts()) {
            return None;
        }
        self.brake.hold(self.level.holds());
        Some(format!("memory: {}", self.state()))
    }

    /// What is done at present, and why.
    fn state(&self) -> String {
        let MemoryLimits { soft_bytes, hard_bytes } = self.limits;
        let what = match self.level {
            Level::Well => "nothing is held back",
            Level::Held { .. } => "sources are held back until what is queued is worked off",
            Level::Full => "new series are refused until there is room; those that are known go on",
            Level::Hard => {
                "sources are held back and new series are refused: raise `memory` or lower `max_series`"
            }
        };
        format!("{} bytes are resident (soft {soft_bytes}, hard {hard_bytes}): {what}", self.resident)
    }

    /// Shows it, and why relight is not ready: it takes nothing.
    pub(super) fn show(&self, posted: &mut Posted) {
        let flag = |metric, is_set| Sample::plain(metric, f64::from(u8::from(is_set)));
        let limit = |edge, bytes| Sample::labelled(metrics::MEMORY_LIMIT, [edge], bytes as f64);
        posted.samples.extend([
            Sample::plain(metrics::MEMORY_RESIDENT, self.resident as f64),
            limit("soft", self.limits.soft_bytes),
            limit("hard", self.limits.hard_bytes),
            flag(metrics::MEMORY_HOLDS, self.level.holds()),
            flag(metrics::MEMORY_SHUTS, self.level.shuts()),
        ]);
        posted.unready.extend(self.level.holds().then(|| self.state()));
    }
}

impl Live {
    /// Memory is watched by this meter, and the sources behind the brake are held back where it gets short.
    pub fn limit_memory(&mut self, limits: MemoryLimits, brake: Brake, meter: Meter) {
        self.memory = Some(Memory::new(limits, brake, meter));
    }

    pub(super) fn show_memory(&self, posted: &mut Posted) {
        if let Some(memory) = &self.memory {
            memory.show(posted);
        }
    }

    pub(super) fn watch_memory(&mut self, now: Timestamp) {
        let Some(memory) = &mut self.memory else { return };
        let told = memory.look(now);
        if memory.level.holds() {
            for stream in &self.streams {
                self.liveness.held_back(stream.ix, now);
            }
        }
        self.pipeline.shut(memory.level.shuts());
        if let Some(told) = told {
            self.notice(&told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MemoryLimits = MemoryLimits { soft_bytes: 1_000, hard_bytes: 2_000 };

    fn check(looks: &[(i64, u64)], expected: &str) {
        let mut level = Level::Well;
        let seen = looks.iter().map(|(secs, resident)| {
            level = level.next(*resident, LIMITS, Timestamp::from_secs(*secs));
            match (level.holds(), level.shuts()) {
                (false, false) => '-',
                (true, false) => 'h',
                (false, true) => 's',
                (true, true) => '!',
            }
        });
        assert_eq!(seen.collect::<String>(), expected, "{looks:?}");
    }

    /// Scenario: memory crosses the edges up and down, quickly and for long.
    /// Guarantee: the soft edge holds sources back for ten seconds at most, then new series are refused and the sources
    /// go on; the hard edge does both for as long as it lasts; each is left a twentieth below itself and not before.
    #[test]
    fn edges_are_crossed_with_patience() {
        check(&[(0, 999), (1, 1_000), (2, 951), (3, 949), (4, 999)], "-hh--");
        check(&[(0, 1_000), (9, 1_500), (10, 1_500), (3_600, 960), (3_601, 940)], "hhss-");
        check(&[(0, 2_000), (60, 1_901), (61, 1_899), (62, 1_000), (63, 949)], "!!ss-");
        check(&[(0, 1_000), (1, 2_000), (2, 1_000), (3, 900)], "h!s-");
    }

    /// Scenario: cgroups within cgroups, some of them without a limit.
    /// Guarantee: the lowest limit on the way to the root counts; without any there is none.
    #[test]
    fn the_tightest_cgroup_counts() {
        let root = tempfile::tempdir().expect("a folder");
        let leaf = root.path().join("system.slice/relight.service");
        std::fs::create_dir_all(&leaf).expect("a folder of our own");
        let limit =
            |dir: &Path, text: &str| std::fs::write(dir.join("memory.max"), text).expect("it is ours");
        let read = || cgroup_limit("0::/system.slice/relight.service\n", root.path());
        assert_eq!(read(), None);
        limit(&leaf, "max\n");
        assert_eq!(read(), None);
        limit(&root.path().join("system.slice"), "500\n");
        assert_eq!(read(), Some(500));
        limit(&leaf, "400\n");
        assert_eq!(read(), Some(400));
        assert_eq!(cgroup_limit("4:memory:/old\n", root.path()), None);
    }

    /// Guarantee: the figure is one: this process has megabytes in memory, and not all that there is.
    #[test]
    fn memory_is_measured() {
        let resident = resident_bytes().expect("Linux tells");
        assert!((1 << 20..1 << 40).contains(&resident), "{resident}");
    }
}
