//! sled, kept at arm's length: it holds a manifest per generation and the small facts, all sealed.
//!
//! sled 0.34 panics on damage, opens a truncated file as an empty database, and fails for ever on a
//! snapshot file that a kill left half-written (measured). So its files are copied before every
//! open, the open is guarded and timed, and what it gives back is believed only as far as seals and
//! sentinel go. Values stay small: what is large lies in image files.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use relight_core::codec::{Codec, Corrupt, Reader, decode_bytes, encode_bytes, open as unseal, seal};

use crate::SCHEMA_VERSION;
use crate::baselines::Manifest;
use crate::error::{Fault, StoreError, failed_to};
use crate::files;

const RECORD: [u8; 4] = *b"MREC";
const FACT: [u8; 4] = *b"FACT";
/// A healthy open takes 10 to 30 ms; one that takes this long never ends.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// Twice the live data and more: a manifest is about 6 KiB at 256 images.
const CACHE_BYTES: u64 = 4 << 20;

/// What sled keeps of a generation: its manifest without the opaque part, and the checksum of the
/// manifest file that holds all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) manifest: Manifest,
    pub(crate) file_crc: u32,
}

impl Record {
    /// The record of a manifest whose file's payload is `encoded`.
    pub(crate) fn new(manifest: &Manifest, encoded: &[u8]) -> Self {
        let manifest = Manifest { intake: Vec::new(), ..manifest.clone() };
        Self { manifest, file_crc: crc32c::crc32c(encoded) }
    }
}

/// All that an open database held.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) records: BTreeMap<u64, Record>,
    pub(crate) facts: BTreeMap<String, Vec<u8>>,
    /// Values that were damaged, for people.
    pub(crate) troubles: Vec<String>,
}

/// An open database.
pub(crate) struct ManifestDb {
    dir: PathBuf,
    db: Option<sled::Db>,
}

/// Where sled's files lie.
pub(crate) fn folder(state: &Path) -> PathBuf {
    state.join("manifest")
}

/// Where they are copied to before an open.
pub(crate) fn copy_folder(state: &Path) -> PathBuf {
    state.join("manifest.copy")
}

/// Opens the database and reads all of it. On success as on damage the copy of its files stays, if
/// there were any, until the caller has judged the contents and moved or removed it.
pub(crate) fn open(state: &Path) -> Result<(ManifestDb, Contents), Fault> {
    let (dir, copy) = (folder(state), copy_folder(state));
    copy_aside(state)?;
    files::make_dir(&dir)?;
    files::sync(state)?;
    drop_snapshots(&dir, ".generating")?;
    let first = guarded_open(&dir);
    let Err(Fault::Damage(first_why)) = first else {
        return first;
    };
    if !copy.exists() {
        return Err(StoreError::Backend { doing: "create the manifest database", why: first_why }.into());
    }
    // A snapshot file only speeds an open up; without a damaged one the log is often whole.
    files::remove(&dir)?;
    files::copy_tree(&copy, &dir)?;
    drop_snapshots(&dir, "")?;
    guarded_open(&dir).map_err(|fault| match fault {
        Fault::Damage(why) if why != first_why => Fault::Damage(format!("{first_why}; then {why}")),
        fault => fault,
    })
}

/// Copies sled's files. A copy that is already there comes from an open that was killed, so nothing
/// was committed since: it goes back into place.
fn copy_aside(state: &Path) -> Result<(), StoreError> {
    let (dir, copy) = (folder(state), copy_folder(state));
    let unfinished = state.join("manifest.copy.tmp");
    files::remove(&unfinished)?;
    if copy.exists() {
        files::remove(&dir)?;
        files::copy_tree(&copy, &dir)?;
        return Ok(());
    }
    if dir.exists() {
        files::copy_tree(&dir, &unfinished)?;
        files::sync_tree(&unfinished)?;
        files::rename(&unfinished, &copy)?;
    }
    Ok(())
}

fn drop_snapshots(dir: &Path, suffix: &str) -> Result<(), StoreError> {
    for (path, _) in files::list(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(suffix) {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// Opens and reads on a thread of its own, so that a panic or an endless loop ends there.
fn guarded_open(dir: &Path) -> Result<(ManifestDb, Contents), Fault> {
    let (send, receive) = mpsc::channel();
    let path = dir.to_owned();
    let work = move || {
        // The receiver is gone only after the time limit, and then nobody wants the answer.
        let _ = send.send(open_and_read(&path));
    };
    thread::Builder::new()
        .name("relight-sled-open".to_owned())
        .spawn(work)
        .map_err(failed_to("start a thread to open", dir))?;
    match receive.recv_timeout(OPEN_LIMIT) {
        Ok(Ok((db, pairs))) => {
            let contents = read_contents(dir, pairs)?;
            Ok((ManifestDb { dir: dir.to_owned(), db: Some(db) }, contents))
        }
        Ok(Err(error)) => Err(judge(error, dir)),
        Err(RecvTimeoutError::Disconnected) => Err(Fault::Damage("sled panicked while opening".to_owned())),
        Err(RecvTimeoutError::Timeout) => {
            Err(Fault::Damage(format!("sled did not open within {} s", OPEN_LIMIT.as_secs())))
        }
    }
}

type Pairs = Vec<(sled::IVec, sled::IVec)>;

fn open_and_read(dir: &Path) -> sled::Result<(sled::Db, Pairs)> {
    // No flusher thread: the only write is the commit, which flushes.
    let db = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
    let pairs = db.iter().collect::<sled::Result<Pairs>>()?;
    Ok((db, pairs))
}

/// An error of the operating system carries its code; what sled makes up itself means damage.
fn judge(error: sled::Error, dir: &Path) -> Fault {
    match error {
        sled::Error::Io(source) if source.raw_os_error().is_some() => {
            Fault::Store(failed_to("open", dir)(source))
        }
        error => Fault::Damage(format!("sled says: {error}")),
    }
}

fn read_contents(dir: &Path, pairs: Pairs) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    for (key, value) in pairs {
        match read_pair(&key, &value, &mut contents) {
            Ok(()) => {}
            Err(Corrupt::Future { found, known }) => {
                let path = dir.to_owned();
                return Err(StoreError::Future { path, found: found.into(), known: known.into() });
            }
            Err(why) => {
                let key = String::from_utf8_lossy(&key);
                contents.troubles.push(format!("sled's value of `{}`: {why}", key.escape_debug()));
            }
        }
    }
    Ok(contents)
}

fn read_pair(key: &[u8], value: &[u8], contents: &mut Contents) -> Result<(), Corrupt> {
    if key.first() == Some(&b'm') {
        let (_, payload) = unseal(RECORD, SCHEMA_VERSION, value)?;
        let mut reader = Reader::new(payload);
        let record = Record { manifest: Manifest::decode(&mut reader)?, file_crc: u32::decode(&mut reader)? };
        reader.finish()?;
        if key != record_key(record.manifest.generation) {
            return Err(Corrupt::Value("generation"));
        }
        contents.records.insert(record.manifest.generation, record);
    } else {
        let (_, payload) = unseal(FACT, SCHEMA_VERSION, value)?;
        let mut reader = Reader::new(payload);
        let (name, value) = (String::decode(&mut reader)?, decode_bytes(&mut reader, "fact")?);
        if key != fact_key(&name) {
            return Err(Corrupt::Value("fact's key"));
        }
        contents.facts.insert(name, value.to_vec());
    }
    Ok(())
}

fn record_key(generation: u64) -> Vec<u8> {
    [b"m".as_slice(), &generation.to_be_bytes()].concat()
}

fn fact_key(name: &str) -> Vec<u8> {
    [b"f", name.as_bytes()].concat()
}

fn seal_record(record: &Record) -> Vec<u8> {
    let mut payload = Vec::new();
    record.manifest.encode(&mut payload);
    record.file_crc.encode(&mut payload);
    seal(RECORD, SCHEMA_VERSION, &payload)
}

fn seal_fact(name: &str, value: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_bytes(name.as_bytes(), &mut payload);
    encode_bytes(value, &mut payload);
    seal(FACT, SCHEMA_VERSION, &payload)
}

impl ManifestDb {
    /// Adds records and facts in one atomic batch, durable on return.
    pub(crate) fn insert<'a>(
        &self,
        records: impl IntoIterator<Item = &'a Record>,
        facts: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for record in records {
            batch.insert(record_key(record.manifest.generation), seal_record(record));
        }
        for (name, value) in facts {
            batch.insert(fact_key(name), seal_fact(name, value));
        }
        self.apply("commit the manifest", batch)
    }

    /// Removes the records of generations below `keep_from`.
    pub(crate) fn remove_records(&self, keep_from: u64) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let old = record_key(0)..record_key(keep_from);
        let keys = self
            .guarded("read the manifest keys", |db| db.range(old).keys().collect::<sled::Result<Vec<_>>>())?;
        for key in keys {
            batch.remove(key);
        }
        self.apply("drop old manifests", batch)
    }

    fn apply(&self, doing: &'static str, batch: sled::Batch) -> Result<(), StoreError> {
        self.guarded(doing, |db| {
            db.apply_batch(batch)?;
            db.flush()
        })?;
        // On Linux sled's flush is sync_file_range, which flushes neither the disk's cache nor the
        // file's size (0.34.7, pagecache/iobuf.rs): without this a power cut may undo a commit.
        files::sync_tree(&self.dir)
    }

    fn guarded<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        let db = self.db.as_ref().expect("taken only when dropped");
        let why = match catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "sled panicked".to_owned(),
        };
        Err(StoreError::Backend { doing, why })
    }
}

impl Drop for ManifestDb {
    fn drop(&mut self) {
        let db = self.db.take();
        // sled unwraps a last fsync here; a disk that refuses it has been reported by the commit.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}
