//! Dead letters in a file: one JSON object a line, synced before it counts as written.
//!
//! At most two files of a bounded size are kept: the current one, and the one before it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Letter;

/// Bytes at which a file is put aside.
const MAX_BYTES: u64 = 256 << 20;

/// A file of letters, opened with the first of them.
pub(super) struct LetterFile {
    path: PathBuf,
    open: Option<(File, u64)>,
    max_bytes: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: u64,
    received: String,
    reason: &'a str,
    key: Option<String>,
    value: String,
    /// Bytes of the value; more than `value` holds if it was cut.
    bytes: usize,
}

impl LetterFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, open: None, max_bytes: MAX_BYTES }
    }

    /// Writes letters and syncs them. After an error the file is opened anew; a letter may then be there twice.
    pub(super) fn write(&mut self, letters: &[Letter]) -> io::Result<()> {
        let mut text = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut text, &line(letter))?;
            text.push(b'\n');
        }
        let written = self.append(&text);
        if written.is_err() {
            self.open = None;
        }
        written
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, bytes)| *bytes >= self.max_bytes) {
            self.open = None;
            let mut aside = self.path.clone().into_os_string();
            aside.push(".old");
            std::fs::rename(&self.path, aside)?;
        }
        if self.open.is_none() {
            self.open = Some(self.reopen()?);
        }
        let Some((file, bytes)) = &mut self.open else { return Ok(()) };
        file.write_all(text)?;
        file.sync_data()?;
        *bytes += text.len() as u64;
        Ok(())
    }

    fn reopen(&self) -> io::Result<(File, u64)> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(&self.path)?;
        let bytes = file.metadata()?.len();
        if bytes > 0 && !ends_a_line(&mut file)? {
            // What a crash left of a line must not swallow the next.
            file.write_all(b"\n")?;
        }
        if let Some(folder) = folder {
            File::open(folder)?.sync_all()?;
        }
        Ok((file, bytes))
    }
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn line(letter: &Letter) -> Line<'_> {
    Line {
        topic: &letter.topic,
        partition: letter.partition,
        offset: letter.offset,
        received: letter.received.to_string(),
        reason: letter.why(),
        key: letter.kept_key().map(|key| STANDARD.encode(key)),
        value: STANDARD.encode(letter.kept()),
        bytes: letter.value.len(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use relight_core::Timestamp;

    use super::*;

    fn letter(offset: u64) -> Letter {
        Letter {
            topic: "t".into(),
            partition: 3,
            offset,
            received: Timestamp::from_secs(1),
            why: "no".to_owned(),
            key: None,
            value: Bytes::from_static(b"\xFFx"),
            unwritten: super::super::Unwritten::default(),
        }
    }

    /// Scenario: a file that a crash left with half a line, then letters past its bound.
    /// Guarantee: every letter has a line of its own, and the file before is kept.
    #[test]
    fn letters_have_lines_of_their_own() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("more/letters.ndjson");
        std::fs::create_dir_all(folder.path().join("more")).expect("a folder");
        std::fs::write(&path, "{\"half").expect("a file");
        let mut file = LetterFile::new(path.clone());
        file.max_bytes = 200;
        for offset in 0..4 {
            file.write(&[letter(offset)]).expect("the disk has room");
        }
        let old = std::fs::read_to_string(path.with_extension("ndjson.old")).expect("the file before");
        let new = std::fs::read_to_string(&path).expect("the current file");
        let lines: Vec<&str> = old.lines().chain(new.lines()).collect();
        assert_eq!(lines[0], "{\"half");
        let offsets: Vec<u64> = lines[1..]
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"))
            .map(|line| {
                assert_eq!((&line["value"], &line["bytes"]), (&"/3g=".into(), &2.into()));
                line["offset"].as_u64().expect("an offset")
            })
            .collect();
        assert_eq!(offsets, [0, 1, 2, 3]);
        assert!(!new.is_empty() && !old.is_empty());
    }
}
