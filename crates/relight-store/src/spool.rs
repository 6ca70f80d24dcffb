//! Commands for a running daemon, left in its state folder: who may write there may steer it.
//!
//! A file each, read in the order of their names and removed once obeyed: one that is left while nothing runs is
//! found at the next start. A file counts if it is a regular one of the folder's owner, of root or of this process, and
//! short. Knows no command and obeys none.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use relight_files::read_unlinked;
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

/// A file that was left, as its folder lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftFile {
    /// Where it is.
    pub path: PathBuf,
    /// Changes when another file takes its name: inode, and when it was last written in nanoseconds.
    pub identity: (u64, i128),
}

/// A command that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftCommand {
    /// Its file.
    pub file: LeftFile,
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

    /// The files that wait, in order. None is read.
    pub fn list(&self) -> Result<Vec<LeftFile>, StoreError> {
        let mut paths: Vec<PathBuf> = files::list(&self.0)?.into_iter().map(|(path, _)| path).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
        paths.sort();
        let left = |path: PathBuf| {
            // Gone since it was listed: its owner may take a command back.
            let about = fs::symlink_metadata(&path).ok()?;
            let written = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
            Some(LeftFile { path, identity: (about.ino(), written) })
        };
        Ok(paths.into_iter().filter_map(left).collect())
    }

    /// Reads one of them.
    pub fn read(&self, file: LeftFile) -> LeftCommand {
        LeftCommand { words: self.words_of(&file.path), file }
    }

    /// Removes a command that was obeyed, or is none. A folder stays: nothing that relight leaves is one.
    pub fn remove(&self, file: &LeftFile) -> Result<(), StoreError> {
        match fs::remove_file(&file.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed_to("remove", &file.path)(error))
            }
            _ => Ok(()),
        }
    }

    fn words_of(&self, path: &Path) -> Result<(String, String), String> {
        let file = read_unlinked(path, MAX_BYTES).map_err(|error| format!("it {error}"))?;
        let ours = rustix::process::geteuid().as_raw();
        let folder = fs::metadata(&self.0).map_err(|error| error.to_string())?.uid();
        if ![0, ours, folder].contains(&file.owner) {
            return Err(format!(
                "it belongs to user {}, and not to the owner of the state folder",
                file.owner
            ));
        }
        if file.mode & 0o002 != 0 {
            return Err(format!("everybody may write to it (mode {:04o})", file.mode));
        }
        let words: Words = serde_json::from_slice(&file.bytes).map_err(|error| error.to_string())?;
        Ok((words.verb, words.target))
    }
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
        let left = read(&spool);
        let verbs: Vec<_> = left.iter().map(|left| left.words.clone().map(|(verb, _)| verb).ok()).collect();
        assert_eq!(verbs, [Some("pause".to_owned()), Some("resume".to_owned()), None]);
        assert_eq!(left[0].words.as_ref().map(|(_, target)| target.as_str()), Ok("a \"storm\"\n"));
        spool.remove(&left[0].file).expect("it goes");
        spool.remove(&left[0].file).expect("it is gone already");
        assert_eq!(read(&spool).len(), 2);
        assert!(Spool::of(&state.path().join("elsewhere")).is_err());
    }

    fn read(spool: &Spool) -> Vec<LeftCommand> {
        let left = spool.list().expect("a folder");
        left.into_iter().map(|file| spool.read(file)).collect()
    }

    /// Scenario: beside a command there are a pipe without a writer, a link to a command, a folder, a file that everybody may
    /// write, one that is too long, and (where the test may give files away) one of another user.
    /// Guarantee: the command is read, each of the others is no command and says why, and removing one removes nothing that
    /// it points to. A name that was taken by another file is another one.
    #[test]
    fn only_short_regular_files_of_the_owner_are_commands() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let state = tempfile::tempdir().expect("a folder");
        let spool = Spool::of(state.path()).expect("it is there");
        let at = |name: &str| state.path().join("commands").join(name);
        let command = r#"{"verb": "resume", "target": ""}"#;
        let put = |name: &str, text: &str, mode| {
            fs::write(at(name), text).expect("there is room");
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).expect("ours");
        };
        mknodat(CWD, at("1.json"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
        put("elsewhere", command, 0o600);
        std::os::unix::fs::symlink(at("elsewhere"), at("2.json")).expect("linked");
        fs::create_dir(at("3.json")).expect("made");
        put("4.json", command, 0o666);
        put("5.json", &format!("{command}{}", " ".repeat(20_000)), 0o600);
        put("6.json", command, 0o600);
        let is_given = std::os::unix::fs::chown(at("6.json"), Some(12_345), None).is_ok();
        put("7.json", command, 0o644);

        let left = read(&spool);
        let whys = ["folder, pipe", "folder, pipe", "folder, pipe", "0666", "longer than", "user 12345"];
        for (i, why) in whys.iter().enumerate().take(if is_given { 6 } else { 5 }) {
            let said = left[i].words.as_ref().expect_err("no command");
            assert!(said.contains(why), "{i}: {said}");
        }
        assert_eq!(left[6].words, Ok(("resume".to_owned(), String::new())));
        for command in &left {
            let is_folder = command.file.path.ends_with("3.json");
            assert_eq!(spool.remove(&command.file).is_err(), is_folder, "{:?}", command.file);
        }
        assert!(at("elsewhere").exists() && read(&spool).len() == 1);
        put("7.json", command, 0o644);
        assert_ne!(spool.list().expect("a folder").last(), left.last().map(|left| &left.file));
    }
}
