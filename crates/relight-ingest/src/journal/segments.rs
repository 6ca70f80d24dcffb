//! A journal's files: `<first offset>.journal`, each with a head and then entries in the order of their offsets.
//!
//! Only the newest is written to. A frame at its end that was not written whole was never answered, and is cut off at
//! the next start. Any other bad frame is damage: what follows it in its file is lost, and that is said.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use relight_core::codec::Corrupt;

use super::{JournalError, entry, failed_to};
use crate::live::Delivery;

const EXTENSION: &str = "journal";
/// The head of every file: what it is, and the version of what follows.
const MAGIC: [u8; 6] = *b"RLGTJL";
const VERSION: u16 = 1;
const HEAD: usize = MAGIC.len() + 2;
/// A file that has come to this is followed by the next, so that old entries can go.
const SEGMENT_BYTES: u64 = 64 << 20;

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    first: u64,
    /// Where its sound entries end.
    bytes: u64,
}

/// All files of one journal.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    all: Vec<Segment>,
    /// The offset after the last entry.
    end: u64,
    /// The newest file, if it is open for more.
    newest: Option<File>,
}

impl Segments {
    /// Opens what is there, and says what of it is damaged.
    pub(super) fn open(dir: &Path) -> Result<(Self, Vec<String>), JournalError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed_to("create", dir))?;
        let mut firsts = Vec::new();
        for file in fs::read_dir(dir).map_err(failed_to("read", dir))? {
            let path = file.map_err(failed_to("read", dir))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            if let Some(first) = stem.filter(|_| path.extension().is_some_and(|is| is == EXTENSION)) {
                firsts.push((first, path));
            }
        }
        firsts.sort();
        let mut found = Self { dir: dir.to_owned(), all: Vec::new(), end: 0, newest: None };
        let mut damage = Vec::new();
        let nexts: Vec<Option<u64>> = firsts.iter().skip(1).map(|(first, _)| Some(*first)).collect();
        for ((first, path), next) in firsts.into_iter().zip(nexts.into_iter().chain([None])) {
            let bytes = fs::read(&path).map_err(failed_to("read", &path))?;
            let (end, sound) = walk(&bytes, &path)?;
            let end = end.unwrap_or(first);
            let tail = &bytes[sound..];
            // The file that follows one that was cut short begins at the offset that was not answered.
            let was_answered = next.is_some_and(|next| next > end) || entry::is_damaged(tail, end);
            if !tail.is_empty() && was_answered {
                damage.push(format!(
                    "`{}` is damaged after byte {sound}: what it held from offset {end} on is lost",
                    path.display()
                ));
            } else if !tail.is_empty() {
                cut(&path, sound as u64);
            }
            found.end = found.end.max(end);
            found.all.push(Segment { path, first, bytes: sound as u64 });
        }
        Ok((found, damage))
    }

    /// The offset after the last entry; 0 if there never was one.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.all.iter().map(|segment| segment.bytes).sum()
    }

    /// All entries from an offset on, in order. What can no longer be read is passed over.
    pub(super) fn read(&self, from: u64) -> impl Iterator<Item = Delivery> {
        let ends = self.all.iter().skip(1).map(|next| next.first).chain([u64::MAX]);
        let wanted = self.all.iter().zip(ends).filter(move |(_, end)| *end > from);
        wanted.flat_map(move |(segment, _)| {
            let bytes = fs::read(&segment.path).unwrap_or_default();
            let sound = bytes.get(HEAD..segment.bytes as usize).unwrap_or_default();
            deliveries(sound, from)
        })
    }

    /// Writes entries with these offsets, and fsyncs. On an error none of them is there.
    pub(super) fn append(&mut self, offsets: Range<u64>, frames: &[u8]) -> io::Result<()> {
        if self.all.last().is_some_and(|segment| segment.bytes >= SEGMENT_BYTES) {
            self.newest = None;
        }
        let mut file = match self.newest.take() {
            Some(file) => file,
            None => self.begin(offsets.start)?,
        };
        let segment = self.all.last_mut().expect("a segment was begun");
        let written = file.write_all(frames).and_then(|()| file.sync_data());
        if written.is_ok() {
            segment.bytes += frames.len() as u64;
            self.end = offsets.end;
            self.newest = Some(file);
        } else {
            // What is left of it must not be taken for entries. After a failed fsync nothing is known of the
            // file, so it is not written to again.
            let _ = file.set_len(segment.bytes).and_then(|()| file.sync_data());
        }
        written
    }

    /// Begins a file. One that was begun at the same offset and holds nothing is begun anew.
    fn begin(&mut self, first: u64) -> io::Result<File> {
        let path = self.dir.join(format!("{first:020}.{EXTENSION}"));
        self.all.retain(|segment| segment.path != path);
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        self.all.push(Segment { path, first, bytes: HEAD as u64 });
        Ok(file)
    }

    /// Drops the files of which every entry is below an offset.
    pub(super) fn prune(&mut self, below: u64) -> io::Result<()> {
        while let Some(oldest) = self.all.first() {
            let end = self.all.get(1).map_or(self.end, |next| next.first);
            if end > below {
                break;
            }
            fs::remove_file(&oldest.path)?;
            self.all.remove(0);
        }
        // What is in the newest can go only as a whole, so the next entry begins another.
        if self.all.last().is_none_or(|newest| newest.first < below) {
            self.newest = None;
        }
        Ok(())
    }
}

/// Cuts off what was never answered. Where that fails it is left for the next start, which takes it for the same.
fn cut(path: &Path, sound: u64) {
    let cut = |file: File| file.set_len(sound).and_then(|()| file.sync_all());
    let _ = OpenOptions::new().write(true).open(path).and_then(cut);
}

/// The offset after the last sound entry, if there is one, and where that ends.
fn walk(bytes: &[u8], path: &Path) -> Result<(Option<u64>, usize), JournalError> {
    let unreadable = |source| JournalError::Unreadable { path: path.to_owned(), source };
    let Some((head, mut rest)) = bytes.split_at_checked(HEAD) else {
        // It was being begun.
        return Ok((None, bytes.len()));
    };
    let version = u16::from_le_bytes([head[MAGIC.len()], head[MAGIC.len() + 1]]);
    if head[..MAGIC.len()] != MAGIC {
        return Err(unreadable(Corrupt::Magic));
    }
    if version > VERSION {
        return Err(unreadable(Corrupt::Future { found: version, known: VERSION }));
    }
    let mut end = None;
    while let Ok(((offset, _), left)) = entry::split(rest) {
        (end, rest) = (Some(offset + 1), left);
    }
    Ok((end, bytes.len() - rest.len()))
}

fn deliveries(mut bytes: &[u8], from: u64) -> Vec<Delivery> {
    let mut all = Vec::new();
    while let Ok(((offset, body), rest)) = entry::split(bytes) {
        bytes = rest;
        if offset >= from
            && let Ok(delivery) = entry::decode(body)
        {
            all.push(delivery);
        }
    }
    all
}
