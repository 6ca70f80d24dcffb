//! What people want of the daemon: commands from its state folder.
//!
//! Obeyed by the engine, in the ledger, and only then removed, so that a crash in between repeats a command and loses none.
//! A file that is no command, or that cannot be removed, is named once, and holds up no other.

use std::collections::BTreeSet;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use relight_core::text;
use relight_runtime::{Live, LiveInput};
use relight_store::{LeftFile, Spool, StoreError};

use crate::failure::Failure;
use crate::output;

/// Within a second a pause must hold: a look at an empty folder costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What the ledger could not take is told again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Files that are remembered because they could not be removed. Of more none is named and none is read.
const MAX_SETTLED: usize = 1_000;

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obeyed {
    /// It is in the ledger.
    Kept,
    /// The ledger cannot take it now.
    NotKept,
    /// There is no engine any more.
    NoEngine,
}

/// The folder of commands, and which of its files were seen to already.
pub(super) struct Commands {
    spool: Spool,
    /// Files that stay although they are obeyed, or no commands: a full or read-only disk, or a folder.
    settled: BTreeSet<LeftFile>,
    /// The last notice about the folder as a whole.
    said: Option<String>,
}

impl Commands {
    pub(super) const fn new(spool: Spool) -> Self {
        Self { spool, settled: BTreeSet::new(), said: None }
    }

    /// Obeys what was left while nothing ran, before the first effect leaves.
    pub(super) fn at_start(&mut self, live: &mut Live) -> Result<(), Failure> {
        let mut failed = None;
        let looked = self.look(&mut |verb, target| match live.steer(verb, target) {
            Ok(true) => Obeyed::Kept,
            Ok(false) => Obeyed::NotKept,
            Err(error) => {
                failed = Some(error);
                Obeyed::NoEngine
            }
        });
        if let Some(error) = failed {
            return Err(Failure::Run(error.into()));
        }
        looked.map(drop).map_err(|error| Failure::Run(error.into()))
    }

    /// Passes commands on until the engine is gone.
    #[expect(clippy::disallowed_methods, reason = "a folder tells nobody that something was left in it")]
    pub(super) fn watch(mut self, inputs: &Sender<LiveInput>) {
        loop {
            match self.look(&mut |verb, target| pass_on(inputs, verb, target)) {
                Ok(Obeyed::Kept) => {}
                Ok(Obeyed::NotKept) => std::thread::sleep(AGAIN_AFTER),
                Ok(Obeyed::NoEngine) => return,
                Err(error) => self.say_once(format!("commands cannot be read: {error}")),
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Obeys each command that waits, in order, until one cannot be kept.
    fn look(&mut self, obey: &mut dyn FnMut(String, String) -> Obeyed) -> Result<Obeyed, StoreError> {
        let left = self.spool.list()?;
        self.settled.retain(|file| left.binary_search(file).is_ok());
        for file in left {
            if self.settled.contains(&file) {
                continue;
            }
            if self.settled.len() >= MAX_SETTLED {
                self.say_once(format!(
                    "commands: {MAX_SETTLED} files cannot be removed; no other is read until they are gone"
                ));
                return Ok(Obeyed::Kept);
            }
            let command = self.spool.read(file);
            match command.words {
                Ok((verb, target)) => match obey(verb, target) {
                    Obeyed::Kept => {}
                    stop => return Ok(stop),
                },
                Err(why) => {
                    output::notice(&format!("{} is no command: {why}", text::path(&command.file.path)));
                }
            }
            self.settle(command.file);
        }
        self.said = None;
        Ok(Obeyed::Kept)
    }

    /// Removes a file, or remembers one that stays: a command is obeyed once.
    fn settle(&mut self, file: LeftFile) {
        if let Err(error) = self.spool.remove(&file) {
            output::notice(&format!("{error}: it stays there, and is not obeyed again"));
            self.settled.insert(file);
        }
    }

    fn say_once(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            output::notice(&text);
            self.said = Some(text);
        }
    }
}

fn pass_on(inputs: &Sender<LiveInput>, verb: String, target: String) -> Obeyed {
    let (kept, told) = bounded(1);
    if inputs.send(LiveInput::Command { verb, target, kept }).is_err() {
        return Obeyed::NoEngine;
    }
    match told.recv() {
        Ok(true) => Obeyed::Kept,
        Ok(false) => Obeyed::NotKept,
        Err(_) => Obeyed::NoEngine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a folder that looks like a command, a text that is none, and two commands around them; looked at again and
    /// again, while the ledger takes nothing at first.
    /// Guarantee: each command is obeyed once, in order, whatever lies beside it; what stays is settled, and what was put in
    /// its place is looked at.
    #[test]
    fn one_bad_file_holds_up_no_other() {
        let state = tempfile::tempdir().expect("a folder");
        let at = |name: &str| state.path().join("commands").join(name);
        let mut commands = Commands::new(Spool::of(state.path()).expect("it is there"));
        let put = |name: &str, verb: &str| {
            let text = format!("{{\"verb\": \"{verb}\", \"target\": \"\"}}");
            std::fs::write(at(name), text).expect("there is room");
        };
        put("1.json", "pause");
        std::fs::create_dir(at("2.json")).expect("made");
        std::fs::write(at("3.json"), "pause!").expect("there is room");
        put("4.json", "resume");
        let mut look = |answer: Obeyed| {
            let mut verbs = Vec::new();
            let came = commands.look(&mut |verb, _| {
                verbs.push(verb);
                answer
            });
            (came.expect("it can be listed"), verbs, commands.settled.len())
        };
        assert_eq!(look(Obeyed::NotKept), (Obeyed::NotKept, vec!["pause".to_owned()], 0));
        let both = vec!["pause".to_owned(), "resume".to_owned()];
        assert_eq!(look(Obeyed::Kept), (Obeyed::Kept, both, 1));
        assert!(!at("1.json").exists() && !at("3.json").exists() && !at("4.json").exists());
        for _ in 0..3 {
            assert_eq!(look(Obeyed::Kept), (Obeyed::Kept, vec![], 1));
        }
        std::fs::remove_dir(at("2.json")).expect("it is empty");
        put("2.json", "ack");
        assert_eq!(look(Obeyed::Kept), (Obeyed::Kept, vec!["ack".to_owned()], 0));
    }
}
