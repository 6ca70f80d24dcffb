//! Commands for a running daemon, left in its state folder: who may write there may steer it.
//!
//! A file each, read in the order of their names and removed once obeyed: one that is left while nothing runs is
//! found at the next start. Knows no command and obeys none.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{StoreError, failed_to};
use crate::files;

/// A command is a few words. What is longer is none.
const MAX_BYTES: u64 = 16 * 1024;

/// The folder of commands within a state folder.
#[derive(Debug, Clone)]
pub struct Spool(PathBuf);

#[derive(Serialize, Deserialize)]
struct Words {
    verb: String,
    target: String,
}

/// A command that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftCommand {
    /// Its file.
    pub path: PathBuf,
    /// Verb and target; or why it is none.
    pub words: Result<(String, String), String>,
}

impl Spool {
    /// Of a state folder, which must be there.
    pub fn of(state: &Path) -> Result<Self, StoreError> {
        let folder = fs::metadata(state).map_err(failed_to("open the state folder", state))?;
        let dir = state.join("commands");
        if !dir.exists() {
            fs::create_dir_all(&dir).map_err(failed_to("create", &dir))?;
            // Made by root for a daemon that is somebody else, it would keep that one from removing what it obeyed.
            let _ = std::os::unix::fs::chown(&dir, Some(folder.uid()), Some(folder.gid()));
        }
        Ok(Self(dir))
    }

    /// Leaves a command; `order` is its place among others, such as the time. Gives its file, which goes when it has
    /// been obeyed.
    pub fn leave(&self, verb: &str, target: &str, order: u64) -> Result<PathBuf, StoreError> {
        let words = Words { verb: verb.to_owned(), target: target.to_owned() };
        let text = serde_json::to_string(&words).unwrap_or_default();
        let name = format!("{order:020}-{}", std::process::id());
        let (draft, path) = (self.0.join(format!("{name}.new")), self.0.join(format!("{name}.json")));
        files::write_durably(&draft, text.as_bytes())?;
        // The folder is private; whoever the daemon is must be able to read what root left.
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&draft, open).map_err(failed_to("set the permissions of", &draft))?;
        files::rename(&draft, &path)?;
        Ok(path)
    }

    /// What waits, in order.
    pub fn read(&self) -> Result<Vec<LeftCommand>, StoreError> {
        let mut paths: Vec<PathBuf> = files::list(&self.0)?.into_iter().map(|(path, _)| path).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
        paths.sort();
        Ok(paths.into_iter().map(|path| LeftCommand { words: words_of(&path), path }).collect())
    }

    /// Removes a command that was obeyed, or is none.
    pub fn remove(&self, command: &LeftCommand) -> Result<(), StoreError> {
        files::remove(&command.path)
    }
}

fn words_of(path: &Path) -> Result<(String, String), String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let words: Words = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok((words.verb, words.target))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: commands come in their order, what is none is told from them, and what was obeyed is gone.
    #[test]
    fn commands_come_in_order_and_go() {
        let state = tempfile::tempdir().expect("a folder");
        let spool = Spool::of(state.path()).expect("it is there");
        for (order, verb) in [(12, "resume"), (3, "pause")] {
            spool.leave(verb, "a \"storm\"\n", order).expect("there is room");
        }
        fs::write(state.path().join("commands/9.json"), "pause!").expect("there is room");
        fs::write(state.path().join("commands/1.new"), "{").expect("there is room");
        let left = spool.read().expect("readable");
        let verbs: Vec<_> = left.iter().map(|left| left.words.clone().map(|(verb, _)| verb).ok()).collect();
        assert_eq!(verbs, [Some("pause".to_owned()), Some("resume".to_owned()), None]);
        assert_eq!(left[0].words.as_ref().map(|(_, target)| target.as_str()), Ok("a \"storm\"\n"));
        spool.remove(&left[0]).expect("it goes");
        assert_eq!(spool.read().expect("readable").len(), 2);
        assert!(Spool::of(&state.path().join("elsewhere")).is_err());
    }
}
