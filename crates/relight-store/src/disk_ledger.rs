//! The ledger on disk: SQLite with a write-ahead log, fsynced at every commit.
//!
//! What SQLite cannot see is seen here: a flipped byte in a row (checksums), a row or a line that is
//! gone (the audit's chain), a log that was cut short or a file that was emptied or put back (the
//! sentinel counts commits).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use relight_core::incident::{LedgerState, LedgerWrite};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::LEDGER_VERSION;
use crate::error::{Fault, StoreError, failed_to};
use crate::files;
use crate::ledger::{Ledger, LedgerHealth};
use crate::rows::{self, Head};
use crate::sentinel::{Sentinel, Witness};

/// Versions above this are no release's: whatever wrote such a number was not relight.
const LAST_PLAUSIBLE_VERSION: u32 = 9_999;
/// How long a commit waits for a person with a `sqlite3` shell.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// The ledger of one state folder.
pub(crate) struct DiskLedger {
    state: PathBuf,
    sentinel: Sentinel,
    open: Option<Open>,
    // Last, so that it is given back when all else is closed.
    _lock: Arc<File>,
}

struct Open {
    conn: Connection,
    witness: File,
    head: Head,
    /// The file that is written to, which must go on being found under its name.
    place: Place,
}

/// Device and inode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(u64, u64);

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        path.metadata().map(|meta| Self(meta.dev(), meta.ino()))
    }
}

fn main_file(state: &Path) -> PathBuf {
    state.join("ledger.sqlite")
}

/// Fails if the ledger's header names a newer release, without opening it as a database.
///
/// The header has no checksum, so damage to its four bytes of version may look like a newer
/// release. That is refused too: a person can tell, and nothing is lost meanwhile.
pub(crate) fn refuse_future(state: &Path) -> Result<(), StoreError> {
    const USER_VERSION_AT: usize = 60;
    let path = main_file(state);
    let mut header = [0; 100];
    match File::open(&path).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => return Ok(()),
        Err(e) => return Err(failed_to("read", &path)(e)),
    }
    let version = header[USER_VERSION_AT..USER_VERSION_AT + 4].try_into().expect("four bytes");
    refuse_version(&path, u32::from_be_bytes(version))
}

fn refuse_version(path: &Path, found: u32) -> Result<(), StoreError> {
    if (LEDGER_VERSION + 1..=LAST_PLAUSIBLE_VERSION).contains(&found) {
        return Err(StoreError::Future { path: path.to_owned(), found, known: LEDGER_VERSION });
    }
    Ok(())
}

/// Reads a ledger that another process may be writing to; changes nothing.
pub(crate) fn look(state: &Path) -> Result<LedgerState, StoreError> {
    const DOING: &str = "read the ledger";
    let path = main_file(state);
    refuse_future(state)?;
    path.metadata().map_err(failed_to("open", &path))?;
    let failed = |error: rusqlite::Error| StoreError::Backend { doing: DOING, why: error.to_string() };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags).map_err(failed)?;
    conn.busy_timeout(BUSY_LIMIT).map_err(failed)?;
    // One view of all tables, whatever is committed meanwhile.
    let view = conn.unchecked_transaction().map_err(failed)?;
    match rows::read_all(&view) {
        Ok((state, _)) => Ok(state),
        Err(Fault::Store(error)) => Err(error),
        Err(Fault::Damage(why)) => Err(StoreError::Backend { doing: DOING, why }),
    }
}

impl DiskLedger {
    pub(crate) fn new(state: &Path, lock: Arc<File>) -> Self {
        Self { state: state.to_owned(), sentinel: Sentinel::of_ledger(state), open: None, _lock: lock }
    }

    /// The database with its log, and the sentinel last: until it is moved, what is missing is missed.
    fn files(&self) -> [PathBuf; 4] {
        let [main, log, shared] =
            ["", "-wal", "-shm"].map(|end| self.state.join(format!("ledger.sqlite{end}")));
        [main, log, shared, self.sentinel.path().to_owned()]
    }

    /// Makes an empty ledger. It gets its name only when it is complete.
    fn create(&self) -> Result<(), StoreError> {
        let failed = |e: rusqlite::Error| {
            let (doing, why) = ("create the ledger", e.to_string());
            let is_full = e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
            if is_full { StoreError::Unwritable { doing, why } } else { StoreError::Backend { doing, why } }
        };
        let tmp = self.state.join("ledger.new");
        for end in ["", "-wal", "-shm", "-journal"] {
            files::remove(&self.state.join(format!("ledger.new{end}")))?;
        }
        let mut conn = Connection::open(&tmp).map_err(failed)?;
        conn.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        let tx = conn.transaction().map_err(failed)?;
        tx.execute_batch(rows::SCHEMA).map_err(failed)?;
        rows::put(&tx, "meta", "head", &Head::new()).map_err(failed)?;
        tx.pragma_update(None, "user_version", LEDGER_VERSION).map_err(failed)?;
        tx.commit().map_err(failed)?;
        conn.close().map_err(|(_, e)| failed(e))?;
        files::sync(&tmp)?;
        files::rename(&tmp, &main_file(&self.state))?;
        files::sync(&self.state)
    }

    /// Opens the database and reads all of it; writes nothing unless all of it is whole.
    fn read(&self, witness: Witness) -> Result<(LedgerState, Open), Fault> {
        let path = main_file(&self.state);
        // SQLite would open what it may not write to for reading, which looks like a damaged head.
        File::options().read(true).write(true).open(&path).map_err(failed_to("open for writing", &path))?;
        let place = Place::of(&path).map_err(failed_to("open", &path))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags)?;
        // Closing would fold the log into a file that may be about to go to quarantine.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.busy_timeout(BUSY_LIMIT)?;
        conn.execute_batch(
            "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA synchronous = FULL",
        )?;
        check_file(&conn, &path)?;
        let (state, head) = rows::read_all(&conn)?;
        if let Witness::Says(commits) = witness
            && head.commits < commits
        {
            let why = format!("ledger.sqlite has {} of {commits} commits: it was rolled back", head.commits);
            return Err(Fault::Damage(why));
        }
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        self.sentinel.write(head.commits)?;
        let witness = self.sentinel.open()?;
        Ok((state, Open { conn, witness, head, place }))
    }

    fn start_anew(&mut self, why: &str) -> Result<LedgerHealth, StoreError> {
        self.open = None;
        let to = files::quarantine(&self.state, &self.files(), why)?;
        self.create()?;
        self.reopen()?;
        Ok(LedgerHealth::Quarantined { to, why: why.to_owned() })
    }

    /// Opens a ledger that was made just now.
    fn reopen(&mut self) -> Result<LedgerState, StoreError> {
        match self.read(Witness::Absent) {
            Ok((state, open)) => {
                self.open = Some(open);
                Ok(state)
            }
            Err(Fault::Store(error)) => Err(error),
            Err(Fault::Damage(why)) => Err(StoreError::Backend { doing: "open the ledger", why }),
        }
    }
}

/// What SQLite itself can check: version, structure, and that it may write.
fn check_file(conn: &Connection, path: &Path) -> Result<(), Fault> {
    let version: i32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    refuse_version(path, version.cast_unsigned())?;
    if version.cast_unsigned() != LEDGER_VERSION {
        return Err(Fault::Damage(format!("ledger.sqlite: impossible version {version}")));
    }
    let verdict: String = conn.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Fault::Damage(format!("ledger.sqlite: {verdict}")));
    }
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" || conn.is_readonly("main")? {
        return Err(Fault::Damage(format!("ledger.sqlite: its header is damaged (journal mode {mode})")));
    }
    Ok(())
}

/// Whether a commit that failed may be tried again. A write that found no room leaves the log as it was; of an fsync
/// that failed nobody knows what it left, so that what the file holds has to be read again: at the next start.
fn not_committed(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode as Code;
    use rusqlite::ffi;
    const PASSING: [i32; 6] = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_TRUNCATE,
        ffi::SQLITE_IOERR_SHMOPEN,
        ffi::SQLITE_IOERR_SHMSIZE,
        ffi::SQLITE_IOERR_SHMMAP,
        ffi::SQLITE_IOERR_LOCK,
    ];
    let doing = "commit to the ledger";
    let why = error.to_string();
    let passes = error.sqlite_error().is_some_and(|e| match e.code {
        Code::DiskFull
        | Code::ReadOnly
        | Code::CannotOpen
        | Code::PermissionDenied
        | Code::DatabaseBusy
        | Code::DatabaseLocked => true,
        Code::SystemIoFailure => PASSING.contains(&e.extended_code),
        _ => false,
    });
    if passes { StoreError::Unwritable { doing, why } } else { StoreError::Backend { doing, why } }
}

impl Ledger for DiskLedger {
    fn load(&mut self) -> Result<(LedgerState, LedgerHealth), StoreError> {
        self.open = None;
        let witness = self.sentinel.read()?;
        refuse_future(&self.state)?;
        let [main, log, ..] = self.files();
        if !main.exists() {
            if witness == Witness::Absent && !log.exists() {
                self.create()?;
                return Ok((self.reopen()?, LedgerHealth::New));
            }
            let health = self.start_anew("ledger.sqlite is gone")?;
            return Ok((LedgerState::default(), health));
        }
        match self.read(witness) {
            Ok((state, open)) => {
                self.open = Some(open);
                Ok((state, LedgerHealth::Whole))
            }
            Err(Fault::Store(error)) => Err(error),
            Err(Fault::Damage(why)) => Ok((LedgerState::default(), self.start_anew(&why)?)),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let Some(open) = &self.open else { return Ok(()) };
        let path = main_file(&self.state);
        let why = match Place::of(&path) {
            Ok(place) if place == open.place => return Ok(()),
            Ok(_) => "was replaced by another file".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "was removed".to_owned(),
            Err(error) => format!("cannot be reached ({error})"),
        };
        let why = format!("{} {why} while relight runs: put it back, or restart relight", path.display());
        Err(StoreError::Unwritable { doing: "commit to the ledger", why })
    }

    fn commit(&mut self, writes: &[LedgerWrite]) -> Result<(), StoreError> {
        // SQLite goes on writing to a file that has no name any more.
        self.check()?;
        let Some(Open { conn, witness, head, .. }) = &mut self.open else {
            return Err(StoreError::Order("the ledger was not loaded".to_owned()));
        };
        let mut next = head.clone();
        let tx =
            conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| not_committed(&e))?;
        rows::write_all(&tx, &mut next, writes).map_err(|e| not_committed(&e))?;
        tx.commit().map_err(|e| not_committed(&e))?;
        *head = next;
        // The commit stands whatever becomes of this: an older sentinel vouches for less.
        let _ = self.sentinel.note(witness, head.commits);
        Ok(())
    }

    fn quarantine(&mut self, why: &str) -> Result<LedgerHealth, StoreError> {
        self.start_anew(why)
    }
}
