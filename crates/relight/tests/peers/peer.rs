//! A process beside relight: found in the cache, started, waited for, and stopped by its id.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::until;

/// A peer by its name and version in the cache.
pub(crate) fn peer(name: &str) -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("RELIGHT_PEERS_CACHE").or_else(|| Some(set("HOME")?.join(".cache/relight-peers")));
    let path = cache.unwrap_or_default().join(name);
    assert!(path.exists(), "no {}: run testdata/peers/fetch.sh", path.display());
    path
}

/// A file of the tree's.
pub(crate) fn of_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A port that is free now, below those that the system hands out by itself: nobody gets it by chance meanwhile.
pub(crate) fn free_port() -> SocketAddr {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() as u16 % 500;
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 5_000 + (first * 10 + n) % 5_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().expect("it is bound");
        }
    }
}

/// A process that runs.
pub(crate) struct Peer {
    child: Child,
    said: PathBuf,
}

impl Peer {
    /// Starts a program whose output goes to a file. The kernel kills it should this process die first.
    pub(crate) fn start<S: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = S>,
        said: &Path,
    ) -> Self {
        let log = File::options().create(true).append(true).open(said).expect("a folder of our own");
        let child = command(program, args).stdout(log.try_clone().expect("a file")).stderr(log).spawn();
        Self { child: child.expect("util-linux has `setpriv`"), said: said.to_owned() }
    }

    /// The same for one whose lines on standard output are read here.
    pub(crate) fn telling<S: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = S>,
        said: &Path,
    ) -> (Self, Receiver<String>) {
        let log = File::options().create(true).append(true).open(said).expect("a folder of our own");
        let child = command(program, args).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.expect("util-linux has `setpriv`");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (tell, told) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        (Self { child, said: said.to_owned() }, told)
    }

    /// Waits until it listens.
    pub(crate) fn listening(mut self, at: SocketAddr) -> Self {
        until(
            || format!("nothing listens on {at}: {}", text(&self.said)),
            || {
                let ended = self.child.try_wait().expect("it is our child");
                assert!(ended.is_none(), "{ended:?}: {}", text(&self.said));
                TcpStream::connect(at).is_ok()
            },
        );
        self
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        text(&self.said)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("there is a `kill`").success());
    }

    /// Waits until it ends by itself; what it leaves is its exit code's success.
    pub(crate) fn end(mut self) -> bool {
        let mut ended = None;
        until(
            || format!("it does not end: {}", text(&self.said)),
            || {
                ended = self.child.try_wait().expect("it is our child");
                ended.is_some()
            },
        );
        ended.is_some_and(|status| status.success())
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(self) -> bool {
        self.signal("-TERM");
        self.end()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command<S: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args).stdin(Stdio::null());
    command
}

/// What is in a file; nothing if it is not there.
pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until a file holds a text.
pub(crate) fn await_text(path: &Path, holds: impl Fn(&str) -> bool) -> String {
    let mut found = String::new();
    until(
        || format!("{}: {}", path.display(), text(path)),
        || {
            found = text(path);
            holds(&found)
        },
    );
    found
}
