//! No memory of this process on a disk: a core dump would hold every secret.

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Turns core dumps off, whatever the shell or the unit allows. The limit alone does not: where dumps go to a program,
/// as systemd-coredump, Linux does not look at it. Programs that are started may raise the limit for themselves.
pub(super) fn forbid_core_dumps() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    // Neither fails for a process about itself; a daemon that cannot do this is still better than none.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
    #[cfg(target_os = "linux")]
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: after it the system writes no dump of this process, to a file or to a program.
    #[test]
    fn no_core_is_dumped() {
        forbid_core_dumps();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        #[cfg(target_os = "linux")]
        assert_eq!(rustix::process::dumpable_behavior().ok(), Some(DumpableBehavior::NotDumpable));
    }
}
