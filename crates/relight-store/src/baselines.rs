//! The baselines' contract: generations of one cut each, and the manifest that makes one count.

use std::path::PathBuf;

use relight_core::codec::{Codec, Corrupt, Reader};
use relight_core::incident::Applied;
use relight_core::{KeyGroup, Timestamp, codec_struct};

use crate::error::StoreError;

/// Which of the two partitions of state a key group's image belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageKind {
    /// Series with their last points, and the open bins.
    Series,
    /// Rows with their detectors' states.
    Rows,
}

/// How far one partition had been read at the cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionCut {
    /// The partition's name.
    pub name: String,
    /// The first offset that is not in the state.
    pub next_offset: u64,
    /// Highest event time seen.
    pub highest: Timestamp,
    /// Its watermark.
    pub watermark: Timestamp,
}

/// One image as the manifest vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// Series or rows.
    pub kind: ImageKind,
    /// Of which key group.
    pub group: KeyGroup,
    /// Bytes of the payload, the envelope excluded.
    pub bytes: u64,
    /// CRC32C of the payload.
    pub crc: u32,
    /// The generation whose folder it lies in: always the manifest's own, so that damage to one
    /// file can cost one generation and never two.
    pub generation: u64,
}

/// What one cut consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// Rises with every commit; any number above 0.
    pub generation: u64,
    /// End of the last bin turn before the cut.
    pub turn: Option<Timestamp>,
    /// Bin turns so far.
    pub turns: u64,
    /// Hash of the config under which the state was learned.
    pub config_hash: u64,
    /// How far each partition had been read.
    pub partitions: Vec<PartitionCut>,
    /// Engine state that is neither series nor rows; opaque here.
    pub intake: Vec<u8>,
    /// The images. A key group without one has no state.
    pub images: Vec<ImageRef>,
}

/// A whole, checked cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its manifest.
    pub manifest: Manifest,
    /// Payloads, in the order of [`Manifest::images`].
    pub images: Vec<(ImageKind, KeyGroup, Vec<u8>)>,
}

/// How the baselines were found. A snapshot is always one committed cut, bit for bit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// There are none, and nothing says that there ever were.
    Cold,
    /// The newest committed cut.
    Whole(Snapshot),
    /// Something was damaged. The newest cut that is whole: the newest one, where another copy of
    /// what was damaged existed, else the one before it.
    FellBack {
        /// That cut.
        snapshot: Snapshot,
        /// What was wrong, for people.
        why: String,
    },
    /// No cut is whole: a cold start.
    Quarantined {
        /// Where the damaged files lie, untouched.
        to: PathBuf,
        /// What was wrong, for people.
        why: String,
    },
}

impl Loaded {
    /// The cut to start from, if there is one.
    pub fn into_snapshot(self) -> Option<Snapshot> {
        match self {
            Self::Whole(snapshot) | Self::FellBack { snapshot, .. } => Some(snapshot),
            Self::Cold | Self::Quarantined { .. } => None,
        }
    }
}

/// Keeps cuts of the learned state.
///
/// A generation is written image by image and counts once [`Baselines::commit`] has returned; until
/// then, and if the process dies, it has never been. Facts travel with the cut: what was put since
/// the last commit is lost with it.
pub trait Baselines: Send {
    /// Reads and checks the newest cut. Comes first; may be called again, and then drops what was
    /// put but not committed.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Adds one image to a generation that is not committed yet. Images of another generation that
    /// was begun and not committed are dropped; the same image put twice is replaced. After an error
    /// all images of the generation are to be put anew.
    fn put_image(
        &mut self,
        generation: u64,
        kind: ImageKind,
        group: KeyGroup,
        payload: &[u8],
    ) -> Result<ImageRef, StoreError>;

    /// Makes a generation the newest, durably. Its images must have been put, and the generation
    /// must be above the newest. After an error the last commit stands, and the same call may be tried again.
    fn commit(&mut self, manifest: &Manifest) -> Result<(), StoreError>;

    /// Drops generations below `keep_from`, but never the newest. Call it with N - 1 after the
    /// commit of N.
    fn prune(&mut self, keep_from: u64) -> Result<(), StoreError>;

    /// Puts the newest generation aside, which is whole but cannot be used, as only the caller can
    /// see, and loads what is left.
    fn reject(&mut self, generation: u64, why: &str) -> Result<Loaded, StoreError>;

    /// A small keyed fact. After damage to sled a fact may be missing, or be an older one.
    fn get_fact(&self, key: &str) -> Option<Vec<u8>>;

    /// Sets a fact; durable with the next commit.
    fn put_fact(&mut self, key: &str, value: &[u8]);
}

/// Whether the ledger has seen less than the baselines. The ledger commits first, so such a ledger
/// was rolled back, and belongs in quarantine.
pub fn ledger_behind(manifest: &Manifest, applied: Option<&Applied>) -> bool {
    match (manifest.turn, applied) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(turn), Some(applied)) => applied.turn < turn || applied.count < manifest.turns,
    }
}

impl Codec for ImageKind {
    fn encode(&self, out: &mut Vec<u8>) {
        (*self as u8).encode(out);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        match u8::decode(reader)? {
            0 => Ok(Self::Series),
            1 => Ok(Self::Rows),
            _ => Err(Corrupt::Value("image kind")),
        }
    }
}

impl Codec for ImageRef {
    fn encode(&self, out: &mut Vec<u8>) {
        self.kind.encode(out);
        (self.group.ix() as u8).encode(out);
        self.bytes.encode(out);
        self.crc.encode(out);
        self.generation.encode(out);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self {
            kind: ImageKind::decode(reader)?,
            group: KeyGroup::nth(u8::decode(reader)?.into()),
            bytes: u64::decode(reader)?,
            crc: u32::decode(reader)?,
            generation: u64::decode(reader)?,
        })
    }
}

codec_struct!(PartitionCut { name, next_offset, highest, watermark });
codec_struct!(Manifest { generation, turn, turns, config_hash, partitions, intake, images });
