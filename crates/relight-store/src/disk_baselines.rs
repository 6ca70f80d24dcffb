//! Baselines on disk: a folder of image files per generation, and sled for which of them counts.
//!
//! The manifest lies in both places: as a file among the images, written before they count, and
//! without its opaque part in sled, which makes them count. So a damaged sled costs no generation.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relight_core::KeyGroup;
use relight_core::codec::{Codec, Corrupt, ENVELOPE_BYTES, Reader, open as unseal, seal};

use crate::SCHEMA_VERSION;
use crate::baselines::{Baselines, ImageKind, ImageRef, Loaded, Manifest, Snapshot};
use crate::error::{Fault, StoreError, failed_to, note_damage};
use crate::files;
use crate::manifest_db::{self, ManifestDb, Record};
use crate::sentinel::{Sentinel, Witness};

const MANIFEST: [u8; 4] = *b"MANI";

/// The baselines of one state folder.
pub(crate) struct DiskBaselines {
    state: PathBuf,
    sentinel: Sentinel,
    db: Option<ManifestDb>,
    loaded: bool,
    newest: Option<u64>,
    draft: Option<Draft>,
    facts: BTreeMap<String, Vec<u8>>,
    staged_facts: BTreeMap<String, Vec<u8>>,
    // Last, so that it is given back when all else is closed.
    _lock: Arc<File>,
}

/// A generation that does not count yet.
struct Draft {
    generation: u64,
    images: BTreeMap<(ImageKind, KeyGroup), ImageRef>,
    /// Its folder has its final name: a commit got that far and then failed.
    published: bool,
}

/// What is on disk, before any image was read.
struct Survey {
    db: Option<ManifestDb>,
    candidates: BTreeMap<u64, Manifest>,
    facts: BTreeMap<String, Vec<u8>>,
    promised: Option<u64>,
    troubles: Vec<String>,
}

impl DiskBaselines {
    pub(crate) fn new(state: &Path, lock: Arc<File>) -> Self {
        Self {
            state: state.to_owned(),
            sentinel: Sentinel::of_baselines(state),
            db: None,
            loaded: false,
            newest: None,
            draft: None,
            facts: BTreeMap::new(),
            staged_facts: BTreeMap::new(),
            _lock: lock,
        }
    }

    fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    fn generation_folder(&self, generation: u64) -> PathBuf {
        self.images().join(generation.to_string())
    }

    fn draft_folder(&self, generation: u64) -> PathBuf {
        self.images().join(format!("{generation}.tmp"))
    }

    /// Where a generation is moved before it is removed. What is left of one there goes at the next start.
    fn pruned_folder(&self, generation: u64) -> PathBuf {
        self.images().join(format!("{generation}.old"))
    }

    fn survey(&self) -> Result<Survey, StoreError> {
        let mut troubles = Vec::new();
        let promised = match self.sentinel.read()? {
            Witness::Absent => None,
            Witness::Says(generation) => Some(generation).filter(|g| *g > 0),
            Witness::Damaged => {
                troubles.push("baselines.sentinel is damaged".to_owned());
                None
            }
        };
        let (db, contents) = match note_damage(manifest_db::open(&self.state), &mut troubles)? {
            Some((db, contents)) => (Some(db), contents),
            None => (None, manifest_db::Contents::default()),
        };
        troubles.extend(contents.troubles);
        let unvouched = !contents.records.is_empty() || !self.published()?.is_empty();
        if unvouched && self.sentinel.read()? == Witness::Absent {
            // The first load writes it before the first image can be put.
            troubles.push("baselines.sentinel is gone".to_owned());
        }
        if let Some(promised) = promised.filter(|g| !contents.records.contains_key(g))
            && contents.records.range(promised..).next().is_none()
        {
            troubles.push(format!("the manifest of generation {promised} is gone from sled"));
        }
        let candidates = self.candidates(&contents.records, promised, &mut troubles)?;
        Ok(Survey { db, candidates, facts: contents.facts, promised, troubles })
    }

    /// Generations that sled or, where sled lost them, the sentinel vouches for, and whose manifest reads.
    fn candidates(
        &self,
        records: &BTreeMap<u64, Record>,
        promised: Option<u64>,
        troubles: &mut Vec<String>,
    ) -> Result<BTreeMap<u64, Manifest>, StoreError> {
        let mut generations: Vec<u64> =
            self.published()?.into_iter().filter(|g| Some(*g) <= promised).collect();
        generations.extend(records.keys());
        generations.sort_unstable();
        generations.dedup();
        let mut candidates = BTreeMap::new();
        for generation in generations {
            let manifest = read_manifest(&self.generation_folder(generation), records.get(&generation));
            if let Some(manifest) = note_damage(manifest, troubles)? {
                candidates.insert(generation, manifest);
            }
        }
        Ok(candidates)
    }

    /// Generations that have a folder under their final name, ascending.
    fn published(&self) -> Result<Vec<u64>, StoreError> {
        let mut found: Vec<u64> = files::list(&self.images())?
            .iter()
            .filter_map(|(path, _)| path.file_name()?.to_str()?.parse().ok())
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    fn newest_whole(&self, survey: &mut Survey) -> Result<Option<Snapshot>, StoreError> {
        for (generation, manifest) in survey.candidates.iter().rev() {
            let images = read_images(&self.generation_folder(*generation), manifest);
            if let Some(images) = note_damage(images, &mut survey.troubles)? {
                return Ok(Some(Snapshot { manifest: manifest.clone(), images }));
            }
        }
        Ok(None)
    }

    /// Everything is as it was left: tidies up what a kill may have left half-done.
    fn accept(&mut self, survey: Survey, newest: Option<u64>) -> Result<(), StoreError> {
        files::remove(&manifest_db::copy_folder(&self.state))?;
        files::make_dir(&self.images())?;
        for (path, _) in files::list(&self.images())? {
            let generation = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            if !generation.is_some_and(|g| Some(g) <= newest && survey.candidates.contains_key(&g)) {
                files::remove(&path)?;
            }
        }
        files::sync(&self.state)?;
        if newest.is_none() || newest != survey.promised {
            self.sentinel.write(newest.unwrap_or(0))?;
        }
        self.db = survey.db;
        self.facts = survey.facts;
        self.newest = newest;
        self.loaded = true;
        Ok(())
    }

    /// Puts aside what is newer than the cut that is whole, makes that one the newest, and sled anew.
    fn fall_back(&mut self, mut survey: Survey, snapshot: Snapshot) -> Result<Loaded, StoreError> {
        let found = snapshot.manifest.generation;
        let mut why = survey.troubles.join("; ");
        let mut damaged: Vec<PathBuf> =
            self.published()?.into_iter().filter(|g| *g > found).map(|g| self.generation_folder(g)).collect();
        damaged.push(manifest_db::copy_folder(&self.state));
        damaged.retain(|path| path.exists());
        if !damaged.is_empty() {
            let to = files::quarantine(&self.state, &damaged, &why)?;
            why = format!("{why}; now in {}", to.display());
        }
        // From here on the sentinel vouches for the manifest files, whatever becomes of sled.
        self.sentinel.write(found)?;
        survey.promised = Some(found);
        survey.candidates.retain(|generation, _| *generation <= found);
        drop(survey.db.take());
        let db = self.fresh_db()?;
        let records: Vec<Record> = survey.candidates.values().map(|m| Record::new(m, &encoded(m))).collect();
        db.insert(&records, &survey.facts)?;
        survey.db = Some(db);
        self.accept(survey, Some(found))?;
        Ok(Loaded::FellBack { snapshot, why })
    }

    /// Puts everything aside and starts empty.
    fn give_up(&mut self, mut survey: Survey) -> Result<Loaded, StoreError> {
        let why = survey.troubles.join("; ");
        drop(survey.db.take());
        let copy = manifest_db::copy_folder(&self.state);
        let sled = if copy.exists() { copy } else { manifest_db::folder(&self.state) };
        let damaged = [sled, self.images(), self.sentinel.path().to_owned()];
        let to = files::quarantine(&self.state, &damaged, &why)?;
        let db = Some(self.fresh_db()?);
        let facts = BTreeMap::new();
        self.accept(
            Survey { db, candidates: BTreeMap::new(), facts, promised: None, troubles: Vec::new() },
            None,
        )?;
        Ok(Loaded::Quarantined { to, why })
    }

    fn fresh_db(&self) -> Result<ManifestDb, StoreError> {
        files::remove(&manifest_db::folder(&self.state))?;
        self.reopen_db()
    }

    /// Opens sled where damage is not expected.
    fn reopen_db(&self) -> Result<ManifestDb, StoreError> {
        match manifest_db::open(&self.state) {
            Ok((db, _)) => {
                files::remove(&manifest_db::copy_folder(&self.state))?;
                Ok(db)
            }
            Err(Fault::Store(error)) => Err(error),
            Err(Fault::Damage(why)) => Err(StoreError::Backend { doing: "open the manifest database", why }),
        }
    }

    fn check_order(&self, generation: u64) -> Result<(), StoreError> {
        let newest = self.newest.unwrap_or(0);
        if !self.loaded {
            return Err(StoreError::Order("the baselines were not loaded".to_owned()));
        }
        if generation > newest {
            return Ok(());
        }
        Err(StoreError::Order(format!("generation {generation} does not follow {newest}")))
    }

    /// The draft of a generation; begins it unless it is under way.
    fn draft(&mut self, generation: u64) -> Result<&mut Draft, StoreError> {
        let under_way = self.draft.as_ref().is_some_and(|d| d.generation == generation && !d.published);
        if !under_way {
            self.drop_draft()?;
            files::remove(&self.draft_folder(generation))?;
            files::make_dir(&self.draft_folder(generation))?;
            self.draft = Some(Draft { generation, images: BTreeMap::new(), published: false });
        }
        Ok(self.draft.as_mut().expect("just made"))
    }

    fn drop_draft(&mut self) -> Result<(), StoreError> {
        let Some(draft) = self.draft.take() else {
            return Ok(());
        };
        files::remove(&self.draft_folder(draft.generation))?;
        if draft.published { files::remove(&self.generation_folder(draft.generation)) } else { Ok(()) }
    }

    /// Makes the draft's files durable under their final name. They do not count yet.
    fn publish(&mut self, manifest: &Manifest) -> Result<(), StoreError> {
        let generation = manifest.generation;
        let (tmp, folder) = (self.draft_folder(generation), self.generation_folder(generation));
        let sealed = seal(MANIFEST, SCHEMA_VERSION, &encoded(manifest));
        if self.draft.as_ref().is_some_and(|d| d.generation == generation && d.published) {
            return files::write_durably(&folder.join("manifest.img"), &sealed);
        }
        self.draft(generation)?;
        let path = tmp.join("manifest.img");
        files::write_temporary(&path, &sealed).map_err(failed_to("write", &path))?;
        files::sync_tree(&tmp)?;
        files::rename(&tmp, &folder)?;
        self.draft(generation)?.published = true;
        files::sync_parent(&folder)
    }
}

impl Baselines for DiskBaselines {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        (self.loaded, self.newest, self.draft, self.db) = (false, None, None, None);
        self.staged_facts.clear();
        let mut survey = self.survey()?;
        match self.newest_whole(&mut survey)? {
            Some(snapshot) if survey.troubles.is_empty() => {
                self.accept(survey, Some(snapshot.manifest.generation))?;
                Ok(Loaded::Whole(snapshot))
            }
            Some(snapshot) => self.fall_back(survey, snapshot),
            None if survey.troubles.is_empty() => self.accept(survey, None).map(|()| Loaded::Cold),
            None => self.give_up(survey),
        }
    }

    fn put_image(
        &mut self,
        generation: u64,
        kind: ImageKind,
        group: KeyGroup,
        payload: &[u8],
    ) -> Result<ImageRef, StoreError> {
        self.check_order(generation)?;
        let path = self.draft_folder(generation).join(image_name(kind, group));
        self.draft(generation)?;
        let sealed = seal(image_magic(kind), SCHEMA_VERSION, payload);
        if let Err(error) = files::write_temporary(&path, &sealed) {
            // On a full disk the ledger needs the room more than half a cut does.
            self.drop_draft()?;
            return Err(failed_to("write", &path)(error));
        }
        let image =
            ImageRef { kind, group, bytes: payload.len() as u64, crc: crc32c::crc32c(payload), generation };
        self.draft(generation)?.images.insert((kind, group), image.clone());
        Ok(image)
    }

    fn commit(&mut self, manifest: &Manifest) -> Result<(), StoreError> {
        self.check_order(manifest.generation)?;
        let put = self.draft.as_ref().filter(|d| d.generation == manifest.generation).map(|d| &d.images);
        check_images(manifest, put.unwrap_or(&BTreeMap::new()))?;
        self.publish(manifest)?;
        let db = match self.db.take() {
            Some(db) => db,
            None => self.reopen_db()?,
        };
        // After a failure the handle is gone: fsync errors must not be retried on the same one.
        db.insert([&Record::new(manifest, &encoded(manifest))], &self.staged_facts)?;
        self.db = Some(db);
        self.sentinel.write(manifest.generation)?;
        self.facts.append(&mut self.staged_facts);
        self.newest = Some(manifest.generation);
        self.draft = None;
        Ok(())
    }

    fn prune(&mut self, keep_from: u64) -> Result<(), StoreError> {
        let keep_from = keep_from.min(self.newest.unwrap_or(0));
        let old: Vec<u64> = self.published()?.into_iter().filter(|g| *g < keep_from).collect();
        if old.is_empty() {
            return Ok(());
        }
        let db = match self.db.take() {
            Some(db) => db,
            None => self.reopen_db()?,
        };
        db.remove_records(keep_from)?;
        self.db = Some(db);
        // Out of the way first: a kill while its files are removed must not leave half a generation under its name.
        for generation in &old {
            files::rename(&self.generation_folder(*generation), &self.pruned_folder(*generation))?;
        }
        files::sync(&self.images())?;
        old.into_iter().try_for_each(|generation| files::remove(&self.pruned_folder(generation)))
    }

    fn reject(&mut self, generation: u64, why: &str) -> Result<Loaded, StoreError> {
        let folder = self.generation_folder(generation);
        if !folder.exists() {
            return Err(StoreError::Order(format!("there is no generation {generation} to reject")));
        }
        let rejected = format!("generation {generation} cannot be used: {why}");
        files::quarantine(&self.state, &[folder], &rejected)?;
        Ok(match self.load()? {
            Loaded::FellBack { snapshot, why } => {
                Loaded::FellBack { snapshot, why: format!("{rejected}; {why}") }
            }
            Loaded::Quarantined { to, why } => Loaded::Quarantined { to, why: format!("{rejected}; {why}") },
            loaded => loaded,
        })
    }

    fn get_fact(&self, key: &str) -> Option<Vec<u8>> {
        self.staged_facts.get(key).or_else(|| self.facts.get(key)).cloned()
    }

    fn put_fact(&mut self, key: &str, value: &[u8]) {
        self.staged_facts.insert(key.to_owned(), value.to_vec());
    }
}

/// Checks that a manifest names exactly the images that were put for it.
pub(crate) fn check_images(
    manifest: &Manifest,
    put: &BTreeMap<(ImageKind, KeyGroup), ImageRef>,
) -> Result<(), StoreError> {
    let known = |image: &ImageRef| put.get(&(image.kind, image.group)) == Some(image);
    if manifest.images.len() == put.len() && manifest.images.iter().all(known) {
        return Ok(());
    }
    Err(StoreError::Order(format!(
        "the manifest of generation {} names {} images, and {} others were put",
        manifest.generation,
        manifest.images.len(),
        put.len()
    )))
}

fn encoded(manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::new();
    manifest.encode(&mut out);
    out
}

fn image_name(kind: ImageKind, group: KeyGroup) -> String {
    let letter = match kind {
        ImageKind::Series => 's',
        ImageKind::Rows => 'r',
    };
    format!("{letter}{:03}.img", group.ix())
}

const fn image_magic(kind: ImageKind) -> [u8; 4] {
    match kind {
        ImageKind::Series => *b"SIMG",
        ImageKind::Rows => *b"RIMG",
    }
}

/// Reads a generation's manifest file, and holds it against sled's record where there is one.
fn read_manifest(folder: &Path, record: Option<&Record>) -> Result<Manifest, Fault> {
    let path = folder.join("manifest.img");
    let payload = read_sealed(&path, MANIFEST)?;
    let damage = |why: Corrupt| Fault::Damage(format!("{}: {why}", path.display()));
    let mut reader = Reader::new(&payload);
    let manifest = Manifest::decode(&mut reader).map_err(damage)?;
    reader.finish().map_err(damage)?;
    match record {
        Some(record) if *record != Record::new(&manifest, &payload) => {
            Err(Fault::Damage(format!("{} is not the one that sled vouches for", path.display())))
        }
        _ if folder.file_name() != Some(manifest.generation.to_string().as_ref()) => {
            Err(damage(Corrupt::Value("generation")))
        }
        _ => Ok(manifest),
    }
}

fn read_images(folder: &Path, manifest: &Manifest) -> Result<Vec<(ImageKind, KeyGroup, Vec<u8>)>, Fault> {
    let read = |image: &ImageRef| {
        let path = folder.join(image_name(image.kind, image.group));
        let payload = read_sealed(&path, image_magic(image.kind))?;
        if payload.len() as u64 != image.bytes || crc32c::crc32c(&payload) != image.crc {
            return Err(Fault::Damage(format!("{} is not the one that was committed", path.display())));
        }
        Ok((image.kind, image.group, payload))
    };
    manifest.images.iter().map(read).collect()
}

/// The payload of a sealed file. Missing, unreadable and damaged are all damage here: a manifest
/// or a sentinel vouches for the file.
fn read_sealed(path: &Path, kind: [u8; 4]) -> Result<Vec<u8>, Fault> {
    const EIO: i32 = 5;
    let damage = |why: String| Fault::Damage(format!("{}: {why}", path.display()));
    let mut bytes = match files::read(path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(damage("missing".to_owned())),
        Err(StoreError::Io { source, .. }) if source.raw_os_error() == Some(EIO) => {
            return Err(damage(source.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    match unseal(kind, SCHEMA_VERSION, &bytes) {
        Ok(_) => {
            bytes.drain(..ENVELOPE_BYTES);
            Ok(bytes)
        }
        Err(Corrupt::Future { found, known }) => {
            let path = path.to_owned();
            Err(StoreError::Future { path, found: found.into(), known: known.into() }.into())
        }
        Err(why) => Err(damage(why.to_string())),
    }
}
