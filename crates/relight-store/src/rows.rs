//! The ledger's tables and rows: JSON beside a checksum, and an audit chain.
//!
//! SQLite does not checksum what it stores, so every row carries a CRC32C over table, key and body.
//! The other columns are generated from the body: they are there for people with a `sqlite3` shell,
//! and cannot disagree with it.

use std::collections::BTreeMap;
use std::fmt::Write;

use relight_core::incident::{Applied, Hold, LedgerState, LedgerWrite};
use relight_core::record::Event;
use relight_core::{Labels, Timestamp};
use rusqlite::{Connection, Transaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Fault, StoreError};

pub(crate) const SCHEMA: &str = "
CREATE TABLE incidents (
    key TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL,
    rule TEXT AS (body ->> 'rule'), state TEXT AS (body ->> 'state'),
    detected TEXT AS (body ->> 'detected'), resolved TEXT AS (body ->> 'resolved')
) STRICT, WITHOUT ROWID;
CREATE TABLE actions (
    key TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL,
    incident TEXT AS (body ->> 'incident'), verb TEXT AS (body ->> 'do'),
    responder TEXT AS (body ->> 'with'), state TEXT AS (body ->> 'state')
) STRICT, WITHOUT ROWID;
CREATE TABLE cooldowns (
    key TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL,
    until TEXT AS (body ->> '$')
) STRICT, WITHOUT ROWID;
CREATE TABLE changes (
    key TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL,
    at TEXT AS (body ->> 'at'), at_ns INTEGER AS (body ->> 'at_ns'), kind TEXT AS (body ->> 'kind')
) STRICT, WITHOUT ROWID;
CREATE TABLE breakers (
    key TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL,
    failures INTEGER AS (body ->> '$')
) STRICT, WITHOUT ROWID;
CREATE TABLE advances (
    key TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL,
    partition TEXT AS (body ->> 'partition'), before_offset INTEGER AS (body ->> 'before_offset'),
    till TEXT AS (body ->> 'to')
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE audit (n INTEGER PRIMARY KEY, line TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
";

/// The one row of `meta`: what ties the tables together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Transactions so far.
    pub(crate) commits: u64,
    /// Change events so far: the next one's key.
    changes: u64,
    /// Lines of audit so far.
    audit_lines: u64,
    /// Hash of the last of them.
    audit_hash: String,
    applied: Option<AppliedRow>,
    /// A few at the most, so they need no table.
    #[serde(default)]
    holds: BTreeMap<String, Hold>,
}

impl Head {
    pub(crate) fn new() -> Self {
        Self {
            commits: 0,
            changes: 0,
            audit_lines: 0,
            audit_hash: "0".repeat(64),
            applied: None,
            holds: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AppliedRow {
    turn: Timestamp,
    count: u64,
    digest: u64,
    control: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct ChangeRow {
    at: Timestamp,
    at_ns: i64,
    kind: String,
    labels: Labels,
    body: String,
}

/// One line of audit. The order of its fields is the canonical form that is hashed.
#[derive(Serialize)]
struct AuditRow<'a> {
    n: u64,
    at: Timestamp,
    what: &'a str,
    subject: &'a str,
    detail: &'a str,
}

/// Writes one turn's changes and moves `head` on.
pub(crate) fn write_all(
    tx: &Transaction<'_>,
    head: &mut Head,
    writes: &[LedgerWrite],
) -> rusqlite::Result<()> {
    writes.iter().try_for_each(|write| write_one(tx, head, write))?;
    head.commits += 1;
    put(tx, "meta", "head", head)
}

fn write_one(tx: &Transaction<'_>, head: &mut Head, write: &LedgerWrite) -> rusqlite::Result<()> {
    match write {
        LedgerWrite::Incident(incident) => put(tx, "incidents", &incident.id, incident),
        LedgerWrite::ForgetIncident(id) => tx.execute("DELETE FROM incidents WHERE key = ?1", [id]).map(drop),
        LedgerWrite::Action(action) => put(tx, "actions", &action.id, action),
        LedgerWrite::Cooldown(lock, until) => put(tx, "cooldowns", lock, until),
        LedgerWrite::Change(event) => {
            head.changes += 1;
            put(tx, "changes", &format!("{:020}", head.changes), &ChangeRow::from(event))
        }
        LedgerWrite::ForgetChanges(before) => {
            tx.execute("DELETE FROM changes WHERE at_ns < ?1", [before.ns()]).map(drop)
        }
        LedgerWrite::Breaker(rule, failures) => put(tx, "breakers", rule, failures),
        LedgerWrite::Advance(advance) => {
            put(tx, "advances", &advance_key(&advance.partition, advance.before_offset), advance)
        }
        LedgerWrite::ForgetAdvances { partition, before_offset } => {
            let (from, until) = (advance_key(partition, 0), advance_key(partition, *before_offset));
            tx.execute("DELETE FROM advances WHERE key >= ?1 AND key < ?2", [from, until]).map(drop)
        }
        LedgerWrite::Hold(name, hold) => {
            match hold {
                Some(hold) => head.holds.insert(name.clone(), hold.clone()),
                None => head.holds.remove(name),
            };
            Ok(())
        }
        LedgerWrite::Audit { at, what, subject, detail } => {
            let row = AuditRow { n: head.audit_lines + 1, at: *at, what, subject, detail };
            put_audit(tx, head, &row)
        }
        LedgerWrite::Applied(applied) => {
            let Applied { turn, count, digest, control } = *applied;
            head.applied = Some(AppliedRow { turn, count, digest, control });
            Ok(())
        }
    }
}

/// Keys of one partition lie together, in the order of their offsets.
fn advance_key(partition: &str, offset: u64) -> String {
    format!("{partition}\n{offset:020}")
}

fn put_audit(tx: &Transaction<'_>, head: &mut Head, row: &AuditRow<'_>) -> rusqlite::Result<()> {
    let line = json(row)?;
    let hash = chain(&head.audit_hash, &line);
    tx.execute("INSERT INTO audit (n, line, hash) VALUES (?1, ?2, ?3)", (row.n as i64, &line, &hash))?;
    head.audit_lines = row.n;
    head.audit_hash = hash;
    Ok(())
}

/// Inserts or replaces one row.
pub(crate) fn put(conn: &Connection, table: &str, key: &str, body: &impl Serialize) -> rusqlite::Result<()> {
    let body = json(body)?;
    let crc = checksum(table, key, &body);
    let sql = format!("INSERT OR REPLACE INTO {table} (key, body, crc) VALUES (?1, ?2, ?3)");
    conn.execute(&sql, (key, body, crc)).map(drop)
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

fn checksum(table: &str, key: &str, body: &str) -> u32 {
    let lengths = [table.len() as u64, key.len() as u64].map(u64::to_le_bytes).concat();
    [table, key, body]
        .iter()
        .fold(crc32c::crc32c(&lengths), |crc, part| crc32c::crc32c_append(crc, part.as_bytes()))
}

/// The hash that covers a line and all before it.
fn chain(before: &str, line: &str) -> String {
    let digest = Sha256::new().chain_update(before).chain_update(line).finalize();
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a text cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Reads everything, and checks each row, the chain and the head against each other.
pub(crate) fn read_all(conn: &Connection) -> Result<(LedgerState, Head), Fault> {
    let mut heads: Vec<(String, Head)> = read_table(conn, "meta")?;
    let Some((_, head)) = heads.pop().filter(|_| heads.is_empty()) else {
        return Err(Fault::Damage("ledger.sqlite: the row of `meta` is gone".to_owned()));
    };
    check_audit(conn, &head)?;
    let mut changes: Vec<Event> =
        read_table::<ChangeRow>(conn, "changes")?.into_iter().map(|(_, row)| row.into()).collect();
    changes.sort_by_key(|event| event.at);
    let applied = head.applied.clone().map(|AppliedRow { turn, count, digest, control }| Applied {
        turn,
        count,
        digest,
        control,
    });
    let state = LedgerState {
        applied_through: applied,
        incidents: read_table(conn, "incidents")?.into_iter().map(|(_, row)| row).collect(),
        actions: read_table(conn, "actions")?.into_iter().map(|(_, row)| row).collect(),
        cooldowns: read_table(conn, "cooldowns")?,
        changes,
        breakers: read_table(conn, "breakers")?,
        advances: read_table(conn, "advances")?.into_iter().map(|(_, row)| row).collect(),
        holds: head.holds.clone().into_iter().collect(),
    };
    Ok((state, head))
}

/// All rows of a table in the order of their keys.
fn read_table<T: DeserializeOwned>(conn: &Connection, table: &str) -> Result<Vec<(String, T)>, Fault> {
    let damage = |key: &str, why: &str| {
        Fault::Damage(format!("ledger.sqlite: row `{}` of `{table}`: {why}", key.escape_debug()))
    };
    let mut query = conn.prepare(&format!("SELECT key, body, crc FROM {table} ORDER BY key"))?;
    let mut rows = query.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (key, body, crc): (String, String, u32) = row.try_into()?;
        if checksum(table, &key, &body) != crc {
            return Err(damage(&key, "checksum does not match"));
        }
        let value = serde_json::from_str(&body).map_err(|e| damage(&key, &e.to_string()))?;
        found.push((key, value));
    }
    Ok(found)
}

fn check_audit(conn: &Connection, head: &Head) -> Result<(), Fault> {
    let mut query = conn.prepare("SELECT n, line, hash FROM audit ORDER BY n")?;
    let mut rows = query.query([])?;
    let (mut lines, mut last) = (0, Head::new().audit_hash);
    while let Some(row) = rows.next()? {
        let (n, line, hash): (i64, String, String) = row.try_into()?;
        lines += 1;
        last = chain(&last, &line);
        if n != lines || last != hash {
            return Err(Fault::Damage(format!("ledger.sqlite: line {lines} of the audit breaks its chain")));
        }
    }
    if lines as u64 != head.audit_lines || last != head.audit_hash {
        return Err(Fault::Damage(format!("ledger.sqlite: the audit ends early, after line {lines}")));
    }
    Ok(())
}

impl From<rusqlite::Error> for Fault {
    /// Whether SQLite fails because of the file or because of the system around it.
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        use rusqlite::ffi::{SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_SHORT_READ};
        let of_the_system = error.sqlite_error().is_some_and(|e| match e.code {
            Code::SystemIoFailure => {
                ![SQLITE_IOERR_SHORT_READ, SQLITE_IOERR_CORRUPTFS].contains(&e.extended_code)
            }
            Code::CannotOpen
            | Code::PermissionDenied
            | Code::DatabaseBusy
            | Code::DatabaseLocked
            | Code::OutOfMemory => true,
            _ => false,
        });
        if error.sqlite_error_code() == Some(Code::DiskFull) {
            Self::Store(StoreError::Unwritable { doing: "open the ledger", why: error.to_string() })
        } else if of_the_system {
            Self::Store(StoreError::Backend { doing: "read the ledger", why: error.to_string() })
        } else {
            Self::Damage(format!("ledger.sqlite: {error}"))
        }
    }
}

impl From<&Event> for ChangeRow {
    fn from(event: &Event) -> Self {
        let Event { at, kind, labels, body } = event.clone();
        Self { at, at_ns: at.ns(), kind, labels, body }
    }
}

impl From<ChangeRow> for Event {
    fn from(row: ChangeRow) -> Self {
        Self { at: row.at, kind: row.kind, labels: row.labels, body: row.body }
    }
}
