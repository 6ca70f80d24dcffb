//! Snapshots: one cut between turns, copied here and written wherever the driver likes.
//!
//! A cut takes the baselines' store with it and brings it back, so that there is one at a time, and a
//! daemon goes on with its turns while the images reach the disk.

use relight_core::Timestamp;
use relight_core::codec::Codec;
use relight_core::incident::LedgerWrite;
use relight_engine::intake::PartitionState;
use relight_store::{Baselines, ImageRef, Manifest, PartitionCut, StoreError};

use super::{Pipeline, open};
use crate::error::RuntimeError;
use crate::image;

/// Everything learned, as it was between two turns.
pub struct Cut {
    baselines: Box<dyn Baselines>,
    images: Vec<image::Image>,
    manifest: Manifest,
}

/// A cut that was written, or could not be.
pub struct Written {
    baselines: Box<dyn Baselines>,
    manifest: Manifest,
    result: Result<(), RuntimeError>,
    /// Why the generation before the last is still there. The cut stands all the same, and the next one removes both.
    unpruned: Option<StoreError>,
}

impl Cut {
    /// Bytes of the images.
    pub fn bytes(&self) -> usize {
        self.images.iter().map(|(_, _, payload)| payload.len()).sum()
    }

    /// Writes the images, then the manifest, and only then lets go of the generation before the last.
    pub fn write(mut self) -> Written {
        let result = self.put();
        let before = self.manifest.generation - 1;
        let unpruned = result.is_ok().then(|| self.baselines.prune(before).err()).flatten();
        Written { baselines: self.baselines, manifest: self.manifest, result, unpruned }
    }

    fn put(&mut self) -> Result<(), RuntimeError> {
        let generation = self.manifest.generation;
        for (kind, group, payload) in self.images.drain(..) {
            self.manifest.images.push(self.baselines.put_image(generation, kind, group, &payload)?);
        }
        Ok(self.baselines.commit(&self.manifest)?)
    }
}

impl Written {
    /// Of each partition the first offset that the cut does not hold.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, u64)> {
        self.manifest.partitions.iter().map(|p| (p.name.as_str(), p.next_offset))
    }
}

impl Pipeline {
    /// Cuts a snapshot between turns: ledger, images, manifest, and then the generation before the
    /// last may go.
    ///
    /// Like [`Pipeline::written`], gives why what may go is still there.
    pub fn snapshot(&mut self) -> Result<Option<StoreError>, RuntimeError> {
        match self.cut()? {
            Some(cut) => self.written(cut.write()),
            None => Ok(None),
        }
    }

    /// Commits the ledger and copies all that was learned; `None` while another cut is being written, and while
    /// the ledger cannot be written: it is never behind the baselines.
    pub fn cut(&mut self) -> Result<Option<Cut>, RuntimeError> {
        if !self.commit_if_due()? {
            return Ok(None);
        }
        let Some(baselines) = self.baselines.take() else { return Ok(None) };
        match self.images() {
            Ok(images) => {
                let manifest = self.manifest(self.generation + 1, Vec::new());
                Ok(Some(Cut { baselines, images, manifest }))
            }
            Err(error) => {
                self.baselines = Some(baselines);
                Err(error)
            }
        }
    }

    /// Takes a cut back that was written. If it could not be, the generation before it stands. Gives why what may go
    /// is still there, if it is: no matter for what was learned.
    pub fn written(&mut self, written: Written) -> Result<Option<StoreError>, RuntimeError> {
        let Written { baselines, manifest, result, unpruned } = written;
        self.baselines = Some(baselines);
        result?;
        self.generation = manifest.generation;
        // The generation before is kept, too, so what it needs of the journal stays.
        for (partition, before_offset) in std::mem::take(&mut self.covered) {
            if self.advanced.contains(&partition) {
                self.writes.push(LedgerWrite::ForgetAdvances { partition, before_offset });
            }
        }
        self.covered = manifest.partitions.into_iter().map(|p| (p.name, p.next_offset)).collect();
        Ok(unpruned)
    }

    /// Whether a cut is being written.
    pub const fn is_cutting(&self) -> bool {
        self.baselines.is_none()
    }

    /// Generation of the newest snapshot; 0 before there was one.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    fn images(&mut self) -> Result<Vec<image::Image>, RuntimeError> {
        let ranks = self.intake.ranks();
        image::save(&self.settings, self.intake.directory(), &ranks, &mut self.shards)
    }

    fn manifest(&self, generation: u64, images: Vec<ImageRef>) -> Manifest {
        let mut intake = Vec::new();
        self.settings.interval().encode(&mut intake);
        self.totals.encode(&mut intake);
        self.swept.encode(&mut intake);
        self.intake.save(&mut intake);
        let cut = |p: PartitionState| PartitionCut {
            name: p.name,
            next_offset: p.next_offset,
            highest: p.highest,
            watermark: p.watermark,
        };
        Manifest {
            generation,
            turn: self.last_turn,
            turns: self.totals.turns,
            config_hash: open::config_hash(&self.settings),
            partitions: self.intake.partitions().into_iter().map(cut).collect(),
            intake,
            images,
        }
    }

    /// A digest of everything learned, in canonical order: equal states, equal digests.
    pub fn digest(&mut self) -> Result<u64, RuntimeError> {
        let mut bytes = Vec::new();
        for (kind, group, payload) in self.images()? {
            kind.encode(&mut bytes);
            (group.ix() as u8).encode(&mut bytes);
            relight_core::codec::encode_bytes(&payload, &mut bytes);
        }
        self.manifest(0, Vec::new()).encode(&mut bytes);
        Ok(relight_core::series::hash(&bytes))
    }

    /// End of the last bin turn.
    pub const fn last_turn(&self) -> Option<Timestamp> {
        self.last_turn
    }
}
