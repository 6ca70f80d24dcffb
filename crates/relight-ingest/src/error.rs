//! Why a capture cannot be opened or read any further, or a source cannot listen.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a capture cannot be opened or read any further, or a source cannot listen. Bad lines and bad
/// requests are not among these.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Nothing is there.
    #[error("`{}`: no such file or folder", relight_core::text::path(path))]
    Missing {
        /// As it was given.
        path: PathBuf,
    },
    /// It is there, but cannot be opened.
    #[error("cannot open `{}`", relight_core::text::path(path))]
    Open {
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading broke off: the disk failed, or a compressed stream is damaged or cut short.
    #[error("cannot read `{}` beyond line {line}", relight_core::text::path(path))]
    Read {
        /// As it was given.
        path: PathBuf,
        /// The last line that was read, from 1; 0 before the first.
        line: u64,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// A capture is there already.
    #[error(
        "`{}` is there already: give another name, or pass --force to replace it",
        relight_core::text::path(path)
    )]
    Exists {
        /// As it was given.
        path: PathBuf,
    },
    /// Writing broke off: the disk is full, or failed.
    #[error("cannot write `{}` any further; what it holds can be replayed", relight_core::text::path(path))]
    Write {
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no record in it.
    #[error("`{}` is empty", relight_core::text::path(path))]
    Empty {
        /// As it was given.
        path: PathBuf,
    },
    /// Text in two bytes a character.
    #[error(
        "`{0}` is UTF-16, as PowerShell writes it: convert it with `iconv -f UTF-16 -t UTF-8 {0}`",
        path.display()
    )]
    Utf16 {
        /// As it was given.
        path: PathBuf,
    },
    /// JSON for people: its objects go over several lines.
    #[error(
        "`{0}` is JSON spread over several lines: one object (of OTLP, one request) a line is expected, as \
         `jq -c . {0}` writes it",
        relight_core::text::path(path)
    )]
    Spread {
        /// As it was given.
        path: PathBuf,
    },
    /// A folder without captures.
    #[error(
        "no captures in folder `{}`: looked for .ndjson, .jsonl, .json, .csv, .prom and .txt, plain, .gz or \
         .zst (sub-folders are not searched)",
        relight_core::text::path(path)
    )]
    NoCaptures {
        /// As it was given.
        path: PathBuf,
    },
    /// A config in the place of a capture.
    #[error("`{0}` looks like a config, not a capture: pass it as `-c {0}`", relight_core::text::path(path))]
    Config {
        /// As it was given.
        path: PathBuf,
    },
    /// A labels file in the place of a capture.
    #[error("`{0}` holds labels, not records: pass it as `--labels {0}`", relight_core::text::path(path))]
    Labels {
        /// As it was given.
        path: PathBuf,
    },
    /// A CSV was needed.
    #[error("`{}` is not a `timestamp,value` CSV", relight_core::text::path(path))]
    NotSamples {
        /// As it was given.
        path: PathBuf,
    },
    /// None of the formats.
    #[error(
        "`{}` is no capture: line {line} is neither newline-delimited JSON (`{{\"t\":..,\"metric\":..,\
         \"value\":..}}`), OTLP JSON, Prometheus text with timestamps, nor `timestamp,value` CSV",
        relight_core::text::path(path)
    )]
    Unknown {
        /// As it was given.
        path: PathBuf,
        /// The line that decided it, from 1.
        line: u64,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({source}): stop who listens there, or change `{key}`")]
    Listen {
        /// The key that set the address.
        key: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("cannot use `{}`, which `{key}` names: {why}", relight_core::text::path(path))]
    Tls {
        /// The key that named the file.
        key: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A listener's journal cannot be opened.
    #[error("`{key}`: {source}")]
    Journal {
        /// The key that asked for it.
        key: String,
        /// Why not.
        source: crate::journal::JournalError,
    },
    /// A bearer token that nobody gave.
    #[error("`sources.{source_name}.bearer` names the secret `{secret}`, which is missing or empty")]
    NoSecret {
        /// The source.
        source_name: String,
        /// The secret's name.
        secret: String,
    },
}
