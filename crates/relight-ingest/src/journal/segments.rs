//! A journal's files: `<first offset>.journal`, each with a head and then entries in the order of their offsets.
//!
//! Only the newest is written to. A frame at its end that was not written whole was never answered, and is cut off at
//! the next start. Any other bad frame is damage: what follows it in its file is lost, and that is said. A bad head costs
//! nothing where the entries behind it are whole; a file that is none is put aside as `<first offset>.journal.damaged`.
//! There is always a file once there was one, so that a journal that was removed is missed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
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
    /// The offset after its last sound entry.
    end: u64,
    /// Where its sound entries end.
    bytes: u64,
}

/// What the head of a file says.
enum Head {
    Sound,
    /// It is damaged, and entries of this release follow it.
    Damaged,
    /// This is no journal, or one that was being begun.
    Foreign,
}

/// What was found wrong with a journal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Entries are lost, for people.
    pub(crate) lost: Vec<String>,
    /// All entries are there.
    pub(crate) mended: Vec<String>,
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
    /// Opens what is there, and says what of it is damaged. `covered`: the state holds all entries below this offset.
    pub(super) fn open(dir: &Path, covered: u64) -> Result<(Self, Damage), JournalError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed_to("create", dir))?;
        let firsts = list(dir)?;
        let mut found = Self { dir: dir.to_owned(), all: Vec::new(), end: 0, newest: None };
        let mut damage = Damage::default();
        let nexts: Vec<Option<u64>> = firsts.iter().skip(1).map(|(first, _)| Some(*first)).collect();
        for ((first, path), next) in firsts.into_iter().zip(nexts.into_iter().chain([None])) {
            found.add((first, next), path, &mut damage)?;
        }
        damage.lost.extend(found.gaps(covered));
        Ok((found, damage))
    }

    /// Takes in the file that begins at `first`, where the file behind it begins at `next`.
    fn add(
        &mut self,
        (first, next): (u64, Option<u64>),
        path: PathBuf,
        damage: &mut Damage,
    ) -> Result<(), JournalError> {
        let bytes = fs::read(&path).map_err(failed_to("read", &path))?;
        match look_at_head(&bytes, first, &path)? {
            Head::Sound => {}
            Head::Damaged => {
                let result =
                    mend(&path).map_or_else(|error| format!("not mended: {error}"), |()| "mended".to_owned());
                let path = path.display();
                damage
                    .mended
                    .push(format!("the head of `{path}` was damaged, its entries are whole: {result}"));
            }
            Head::Foreign => return put_aside(&path, first, bytes.len() > HEAD, damage),
        }
        let (end, sound) = walk(&bytes);
        let mut end = end.unwrap_or(first);
        let tail = &bytes[sound..];
        // The file that follows one that was cut short begins at the offset that was not answered.
        let was_answered = next.is_some_and(|next| next > end) || entry::is_damaged(tail, end);
        if !tail.is_empty() && was_answered {
            damage.lost.push(format!(
                "`{}` is damaged after byte {sound}: what it held from offset {end} on is lost",
                path.display()
            ));
            // What is lost of it was just said.
            end = next.unwrap_or(end);
        } else if !tail.is_empty() {
            cut(&path, sound as u64);
        }
        self.end = self.end.max(end);
        self.all.push(Segment { path, first, end, bytes: sound as u64 });
        Ok(())
    }

    /// Entries that the state does not hold and no file has, for people. A file that is damaged at its end is told of already.
    fn gaps(&self, covered: u64) -> Vec<String> {
        let dir = self.dir.display();
        let mut gaps = Vec::new();
        if covered == 0 {
            // Nothing is known of what there was.
            return gaps;
        }
        let mut at = covered;
        for segment in &self.all {
            if segment.first > at {
                gaps.push(format!(
                    "`{dir}` has no entries from offset {at} to {}: they are lost",
                    segment.first
                ));
            }
            at = at.max(segment.end);
        }
        if self.end < covered {
            let (end, is) =
                (self.end, if self.all.is_empty() { "is missing or empty" } else { "ends early" });
            gaps.push(format!(
                "`{dir}` {is}: it holds entries up to offset {end}, and the state those up to {covered}; entries behind that \
                 were lost if there were any"
            ));
        }
        gaps
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
            Some(file) if self.is_there(&file) => file,
            _ => self.begin(offsets.start)?,
        };
        let segment = self.all.last_mut().expect("a segment was begun");
        let written = file.write_all(frames).and_then(|()| file.sync_data());
        if written.is_ok() {
            segment.bytes += frames.len() as u64;
            (segment.end, self.end) = (offsets.end, offsets.end);
            self.newest = Some(file);
        } else {
            // What is left of it must not be taken for entries. After a failed fsync nothing is known of the
            // file, so it is not written to again.
            let _ = file.set_len(segment.bytes).and_then(|()| file.sync_data());
        }
        written
    }

    /// Whether the newest file can still be found under its name. What is written to one that was removed is lost.
    fn is_there(&self, newest: &File) -> bool {
        let Some(segment) = self.all.last() else { return false };
        let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let (named, open) = (fs::metadata(&segment.path).map(place), newest.metadata().map(place));
        matches!((named, open), (Ok(named), Ok(open)) if named == open)
    }

    /// Begins a file. One that was begun at the same offset and holds nothing is begun anew.
    fn begin(&mut self, first: u64) -> io::Result<File> {
        let path = self.dir.join(format!("{first:020}.{EXTENSION}"));
        self.all.retain(|segment| segment.path != path);
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&head())?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        self.all.push(Segment { path, first, end: first, bytes: HEAD as u64 });
        Ok(file)
    }

    /// Drops the files of which every entry is below an offset. Where all would go, an empty one is left, so that the journal
    /// still says how far it came.
    pub(super) fn prune(&mut self, below: u64) -> io::Result<()> {
        let has_entries = self.all.last().is_some_and(|newest| newest.end > newest.first);
        if has_entries && self.end <= below {
            self.newest = Some(self.begin(self.end)?);
        }
        while let [oldest, next, ..] = &self.all[..] {
            if next.first > below {
                break;
            }
            match fs::remove_file(&oldest.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.all.remove(0),
            };
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

/// The files of a journal, by their first offsets.
fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let mut firsts = Vec::new();
    for file in fs::read_dir(dir).map_err(failed_to("read", dir))? {
        let path = file.map_err(failed_to("read", dir))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(first) = stem.filter(|_| path.extension().is_some_and(|is| is == EXTENSION)) {
            firsts.push((first, path));
        }
    }
    firsts.sort();
    Ok(firsts)
}

fn head() -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..MAGIC.len()].copy_from_slice(&MAGIC);
    head[MAGIC.len()..].copy_from_slice(&VERSION.to_le_bytes());
    head
}

/// Judges the head of a file. A newer release's is refused: only where entries of this release follow was a version damaged.
fn look_at_head(bytes: &[u8], first: u64, path: &Path) -> Result<Head, JournalError> {
    let Some((found, entries)) = bytes.split_at_checked(HEAD) else {
        // It was being begun.
        return Ok(Head::Foreign);
    };
    if found == head() {
        return Ok(Head::Sound);
    }
    if entries.is_empty() || entry::split(entries).is_ok_and(|((offset, _), _)| offset == first) {
        return Ok(Head::Damaged);
    }
    let version = u16::from_le_bytes([found[MAGIC.len()], found[MAGIC.len() + 1]]);
    if found[..MAGIC.len()] == MAGIC && version > VERSION {
        let source = Corrupt::Future { found: version, known: VERSION };
        return Err(JournalError::Unreadable { path: path.to_owned(), source });
    }
    Ok(Head::Foreign)
}

/// Writes the head of a file anew. Where that fails it is tried at the next start.
fn mend(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&head(), 0)?;
    file.sync_all()
}

/// Renames a file that cannot be read, so that it is out of the way and nothing of it is destroyed.
fn put_aside(path: &Path, first: u64, had_entries: bool, damage: &mut Damage) -> Result<(), JournalError> {
    if !had_entries {
        return fs::remove_file(path).map_err(failed_to("remove", path));
    }
    let aside = path.with_extension(format!("{EXTENSION}.damaged"));
    fs::rename(path, &aside).map_err(failed_to("put aside", path))?;
    damage.lost.push(format!(
        "`{}` is damaged from its head on, and now `{}`: what it held from offset {first} on is lost",
        path.display(),
        aside.display()
    ));
    Ok(())
}

/// The offset after the last sound entry behind a head, if there is one, and where that ends.
fn walk(bytes: &[u8]) -> (Option<u64>, usize) {
    let (mut end, mut rest) = (None, &bytes[HEAD..]);
    while let Ok(((offset, _), left)) = entry::split(rest) {
        (end, rest) = (Some(offset + 1), left);
    }
    (end, bytes.len() - rest.len())
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
