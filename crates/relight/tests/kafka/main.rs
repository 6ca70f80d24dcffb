//! The daemon as a process, on a real broker: what it reads is read once, wherever it is killed, and one of two acts.
//!
//! `testdata/peers/kafka/test.sh` starts a broker, runs these tests and stops it. By hand: `RELIGHT_KAFKA=HOST:PORT`
//! names a broker, and its topics are left there. Nothing in here looks into the process: what it says on the
//! way, what it did, and the state that it left are compared.

#![expect(clippy::print_stdout, reason = "the seed, and how long a takeover took")]

mod backlog;
mod daemon;
mod kills;
mod load;
mod standby;
mod state;

/// A pause between two looks at something that happens in other processes.
fn pause(millis: u64) {
    let (_keep, never) = crossbeam_channel::bounded::<()>(0);
    // Nothing is ever sent.
    let _ = never.recv_timeout(std::time::Duration::from_millis(millis));
}

/// A switch of these tests.
fn switch(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
