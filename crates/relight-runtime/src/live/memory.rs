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
    /// Four fifths and nine tenths of what a process may use.
    pub const fn of(limit_bytes: u64) -> Self {
        Self { soft_bytes: limit_bytes / 5 * 4, hard_bytes: limit_bytes / 10 * 9 }
    }

    /// What the process may use, as far as these edges say it.
    pub const fn limit_bytes(&self) -> u64 {
        self.hard_bytes / 9 * 10
    }
}

/// Bytes of memory that this process may use: the tightest limit of its cgroups, of version 1 or 2, and all memory of the
/// machine. `None` where the system says neither.
pub fn memory_limit() -> Option<u64> {
    limit_under(Path::new("/"))
}

/// The same of a system whose files are below `root`.
fn limit_under(root: &Path) -> Option<u64> {
    let membership = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = root.join("sys/fs/cgroup");
    let limits = membership.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, own) = rest.split_once(':')?;
        match controllers {
            "" => {
                let mounts = [groups.clone(), groups.join("unified")];
                mounts.iter().filter_map(|mount| tightest(mount, own, "memory.max")).min()
            }
            of_v1 if of_v1.split(',').any(|controller| controller == "memory") => {
                let mount = groups.join("memory");
                let known = tightest(&mount, own, "memory.limit_in_bytes");
                known.into_iter().chain(hierarchical(&mount, own)).min()
            }
            _ => None,
        }
    });
    limits.chain(total(root)).min()
}

/// The lowest limit on the way from a process' cgroup to the root. Within a container the way may begin above what is
/// mounted; the root is then the container's own.
fn tightest(mount: &Path, own: &str, file: &str) -> Option<u64> {
    let own = mount.join(own.trim_start_matches('/'));
    let limit = |dir: &Path| read_to_string(dir.join(file)).ok()?.trim().parse().ok();
    own.ancestors().take_while(|dir| dir.starts_with(mount)).filter_map(limit).min()
}

/// What a cgroup of version 1 says that its ancestors leave it, those that are not mounted included.
fn hierarchical(mount: &Path, own: &str) -> Option<u64> {
    let own = mount.join(own.trim_start_matches('/'));
    let mut dirs = own.ancestors().take_while(|dir| dir.starts_with(mount));
    let stat = dirs.find_map(|dir| read_to_string(dir.join("memory.stat")).ok())?;
    let limit = |name: &str| -> Option<u64> {
        stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    limit("hierarchical_memory_limit ")
}

/// All memory of the machine.
fn total(root: &Path) -> Option<u64> {
    let text = read_to_string(root.join("proc/meminfo")).ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))?;
    Some(kib.trim().parse::<u64>().ok()? << 10)
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

    /// Whether a request that brings new series has to come again.
    const fn defers(self) -> bool {
        matches!(self, Self::Held { .. })
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
        if (before.holds(), before.shuts(), before.defers())
            == (self.level.holds(), self.level.shuts(), self.level.defers())
        {
            return None;
        }
        match self.level {
            Level::Held { .. } => self.brake.hold_large(),
            level => self.brake.hold(level.holds()),
        }
        Some(format!("memory: {}", self.state()))
    }

    /// What is done at present, and why.
    fn state(&self) -> String {
        let MemoryLimits { soft_bytes, hard_bytes } = self.limits;
        let what = match self.level {
            Level::Well => "nothing is held back",
            Level::Held { .. } => {
                "sources are held back until what is queued is worked off; small requests without new series go on"
            }
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
        self.pipeline.defer_new(memory.level.defers());
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

    /// A system whose cgroups and memory are files of a folder.
    fn system(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("ours");
            std::fs::write(path, text).expect("a folder of our own");
        }
        limit_under(root.path())
    }

    const TOTAL: (&str, &str) = ("proc/meminfo", "MemTotal:       2000 kB\nMemFree: 1 kB\n");

    /// Scenario: cgroups of version 2 within each other, some of them without a limit, on a machine of 2,000 KiB.
    /// Guarantee: the lowest limit on the way to the root counts; without any it is the machine's memory.
    #[test]
    fn the_tightest_cgroup_counts() {
        let own = ("proc/self/cgroup", "0::/system.slice/relight.service\n");
        let (slice, leaf) = ("sys/fs/cgroup/system.slice/", "sys/fs/cgroup/system.slice/relight.service/");
        let file = |dir: &str| format!("{dir}memory.max");
        assert_eq!(system(&[own, TOTAL]), Some(2_048_000));
        assert_eq!(system(&[own, TOTAL, (&file(leaf), "max\n")]), Some(2_048_000));
        assert_eq!(system(&[own, TOTAL, (&file(leaf), "max\n"), (&file(slice), "500\n")]), Some(500));
        assert_eq!(system(&[own, TOTAL, (&file(leaf), "400\n"), (&file(slice), "500\n")]), Some(400));
        assert_eq!(system(&[own, TOTAL, (&file(leaf), "9000000\n")]), Some(2_048_000));
        assert_eq!(system(&[own, (&file(leaf), "400\n")]), Some(400));
        assert_eq!(system(&[own]), None);
        let hybrid = ("sys/fs/cgroup/unified/system.slice/memory.max", "300\n");
        assert_eq!(system(&[own, TOTAL, hybrid]), Some(300));
    }

    /// Scenario: cgroups of version 1: with limits of their own, within a container that mounts its own group as the root,
    /// and below groups that are not mounted.
    /// Guarantee: the lowest of all counts; what stands for "no limit" is none.
    #[test]
    fn version_1_counts_as_well() {
        let own = ("proc/self/cgroup", "5:devices:/x\n4:cpu,memory:/docker/abc\n0::/\n");
        let at = |dir: &str, file: &str| format!("sys/fs/cgroup/memory/{dir}{file}");
        let none = "9223372036854771712\n";
        let limit = |dir: &str| at(dir, "memory.limit_in_bytes");
        assert_eq!(system(&[own, TOTAL, (&limit("docker/abc/"), none)]), Some(2_048_000));
        assert_eq!(system(&[own, TOTAL, (&limit("docker/abc/"), "700\n"), (&limit(""), none)]), Some(700));
        assert_eq!(system(&[own, TOTAL, (&limit("docker/"), "600\n")]), Some(600));
        assert_eq!(system(&[own, TOTAL, (&limit(""), "500\n")]), Some(500), "a container's own root");
        let stat = (&*at("", "memory.stat"), "cache 1\nhierarchical_memory_limit 400\n");
        assert_eq!(system(&[own, TOTAL, (&limit(""), "500\n"), stat]), Some(400));
    }

    /// Guarantee: the figure is one: this process has megabytes in memory, and not all that there is.
    #[test]
    fn memory_is_measured() {
        let resident = resident_bytes().expect("Linux tells");
        assert!((1 << 20..1 << 40).contains(&resident), "{resident}");
    }
}
