//! Processes that a program has started and that have left its process group, by `setsid` for example.
//!
//! They are known by what they inherit: the attempt's variables in their environment, and a line of parents with the
//! same that begins with the program or with an orphan. One that clears its environment and leaves the group is not
//! found; only a cgroup of its own would hold it, which relight does not make. Elsewhere than on Linux none is found.

use std::fs;

use relight_core::responder::Attempt;
use rustix::process::{Pid, getpid};

/// A process that is ended may have started another one meanwhile.
const ROUNDS: usize = 8;
/// Parents that are followed; a longer line is no program's.
#[cfg(target_os = "linux")]
const MAX_PARENTS: usize = 64;

/// The processes of one attempt.
pub(crate) struct Strays {
    variables: [Vec<u8>; 2],
    leader: Option<Pid>,
}

impl Strays {
    pub(crate) fn of(attempt: &Attempt, leader: Option<Pid>) -> Self {
        let key = format!("RELIGHT_IDEMPOTENCY_KEY={}", attempt.idempotency_key).into_bytes();
        let number = format!("RELIGHT_ATTEMPT={}", attempt.number).into_bytes();
        Self { variables: [key, number], leader }
    }

    /// Kills them all. Reads the environment of every process that may be read: some 10 us each.
    pub(crate) fn end(&self) {
        for _ in 0..ROUNDS {
            let ended = processes().filter(|pid| self.end_if_stray(*pid)).count();
            if ended == 0 {
                return;
            }
        }
    }

    /// Whether it was one, and is killed.
    #[cfg(target_os = "linux")]
    fn end_if_stray(&self, pid: Pid) -> bool {
        use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        // Opened before anything is read, so that the number is still this process's by the time of the signal.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.is_stray(pid) && pidfd_send_signal(&process, Signal::KILL).is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "the same as on Linux")]
    const fn end_if_stray(&self, _pid: Pid) -> bool {
        false
    }

    /// Another relight on this machine may run the same action: its programs descend from it.
    #[cfg(target_os = "linux")]
    fn is_stray(&self, pid: Pid) -> bool {
        let mut oldest = pid;
        for _ in 0..MAX_PARENTS {
            if !self.has_variables(oldest) {
                return false;
            }
            match parent(oldest) {
                _ if Some(oldest) == self.leader => return true,
                Some(parent) if self.has_variables(parent) => oldest = parent,
                parent => return parent == Some(Pid::INIT),
            }
        }
        false
    }

    #[cfg(target_os = "linux")]
    fn has_variables(&self, pid: Pid) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
        let has = |variable: &Vec<u8>| environment.split(|byte| *byte == 0).any(|one| one == variable);
        self.variables.iter().all(has)
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = getpid();
    entries
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(move |pid| *pid != own)
}

#[cfg(target_os = "linux")]
fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // `pid (name) state parent ..`, and a name may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}
