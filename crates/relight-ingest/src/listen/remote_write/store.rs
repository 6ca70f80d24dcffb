//! The file that a source's metric families are kept in: one JSON document, replaced as a whole.
//!
//! It lies beside the baselines and not in them, so that a start without baselines still knows what counts up. Of a
//! file that cannot be read nothing is taken: the families wait for metadata again, which is safe.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::kinds::{MAX_FAMILIES, Saved};

const VERSION: u32 = 1;
/// Bytes of the largest file that is written: each name at its longest, escaped.
const MAX_BYTES: u64 = MAX_FAMILIES as u64 * (6 << 10);

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    families: Vec<Saved>,
}

/// Reads what was kept; nothing, where there is no file.
pub(super) fn load(path: &Path) -> Result<Vec<Saved>, String> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        meta => meta.map_err(|error| error.to_string())?,
    };
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err("not a regular file of a plausible size".to_owned());
    }
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    read.map_err(|error| error.to_string())?;
    let Document { version, families } =
        serde_json::from_slice(&text).map_err(|error| format!("damaged: {error}"))?;
    if version != VERSION {
        return Err(format!("version {version} (this release reads {VERSION})"));
    }
    Ok(families)
}

/// Replaces what is kept: written beside it, fsynced, renamed.
pub(super) fn save(path: &Path, families: Vec<Saved>) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let text = serde_json::to_vec(&Document { version: VERSION, families })?;
    // `create_new`: a link that somebody left there is not followed.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::kinds::Family;
    use super::*;

    /// Guarantee: what is kept is read back; of a file that is cut short, of another version or no file at all nothing is
    /// taken, and the reason is said.
    #[test]
    fn what_is_kept_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("families/prom.json");
        assert_eq!(load(&path), Ok(Vec::new()));
        let one = |name: &str, family, guessed| Saved { name: name.to_owned(), family, guessed };
        let all = vec![one("jobs\n\"done\"", Family::Counter, false), one("load", Family::Gauge, true)];
        save(&path, all.clone()).expect("there is room");
        save(&path, all.clone()).expect("again");
        assert_eq!(load(&path).as_ref(), Ok(&all));
        let text = fs::read(&path).expect("it is there");
        for end in 0..text.len() {
            fs::write(&path, &text[..end]).expect("there is room");
            assert!(load(&path).is_err(), "{end} of {} bytes", text.len());
        }
        fs::write(&path, br#"{"version":2,"families":[]}"#).expect("there is room");
        assert!(load(&path).is_err_and(|why| why.contains("version 2")));
        fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).expect("a folder of our own");
        assert!(load(&path).is_err());
    }
}
