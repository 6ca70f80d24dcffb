//! Key-group images: names and states of one group, put together and taken apart again.
//!
//! Names come from the directory, states from the shard that owns the group. Everything is written
//! in the order of names, so that equal states give equal bytes.

use relight_core::codec::{Codec, Corrupt, Reader, decode_bytes, encode_bytes};
use relight_core::record::Kind;
use relight_core::rule::Settings;
use relight_core::series::KeyGroup;
use relight_core::signal::SignalSpec;
use relight_engine::directory::{Directory, RowAddr, SeriesAddr, SourceIx, Stat, key_groups};
use relight_engine::intake::Routed;
use relight_store::ImageKind;

use crate::error::RuntimeError;
use crate::shards::Shards;

/// One image, ready for the store.
pub(crate) type Image = (ImageKind, KeyGroup, Vec<u8>);

/// All images of a cut, in the order of kinds and groups. Groups without state have none.
pub(crate) fn save(
    settings: &Settings,
    directory: &Directory,
    ranks: &[u16],
    shards: &mut Shards,
) -> Result<Vec<Image>, RuntimeError> {
    let mut images = Vec::new();
    for group in key_groups() {
        if let Some(image) = save_series(settings, directory, group, ranks, shards)? {
            images.push((ImageKind::Series, group, image));
        }
    }
    for group in key_groups() {
        let image = save_rows(settings, directory, group, shards)?;
        if !image.is_empty() {
            images.push((ImageKind::Rows, group, image));
        }
    }
    Ok(images)
}

fn save_series(
    settings: &Settings,
    directory: &Directory,
    group: KeyGroup,
    ranks: &[u16],
    shards: &mut Shards,
) -> Result<Option<Vec<u8>>, RuntimeError> {
    let order = directory.series_order(group);
    // What a group has counted outlives its series.
    if order.is_empty() && shards.on(group, move |shard| shard.fold.is_untouched(group))? {
        return Ok(None);
    }
    let mut image = Vec::new();
    let sources = &settings.sources;
    (sources.len() as u32).encode(&mut image);
    for source in sources {
        source.name.encode(&mut image);
    }
    (order.len() as u32).encode(&mut image);
    for slot in &order {
        let at = SeriesAddr { group, slot: *slot };
        encode_bytes(directory.series_key(at), &mut image);
        (directory.series_kind(at) as u8).encode(&mut image);
        directory.series_source(at).map_or(u16::MAX, |SourceIx(ix)| ix).encode(&mut image);
    }
    let ranks = ranks.to_vec();
    let image = shards.on(group, move |shard| {
        shard.fold.save(group, &order, &ranks, &mut image);
        image
    })?;
    Ok(Some(image))
}

fn save_rows(
    settings: &Settings,
    directory: &Directory,
    group: KeyGroup,
    shards: &mut Shards,
) -> Result<Vec<u8>, RuntimeError> {
    let mut image = Vec::new();
    for (signal, spec) in settings.signals.iter().enumerate() {
        let order = directory.row_order(signal, group);
        if order.is_empty() {
            continue;
        }
        title(spec).encode(&mut image);
        (order.len() as u32).encode(&mut image);
        for row in &order {
            let (key, stat) = directory.row_identity(RowAddr { signal: signal as u16, group, row: *row });
            encode_bytes(key, &mut image);
            (stat as u8).encode(&mut image);
        }
        let states = shards.on(group, move |shard| {
            let mut states = Vec::new();
            shard.detect.save(signal, group, &order, &mut states);
            states
        })?;
        encode_bytes(&states, &mut image);
    }
    Ok(image)
}

/// Takes images apart into an empty directory and empty shards.
pub(crate) fn load(
    settings: &Settings,
    directory: &mut Directory,
    images: &[Image],
    shards: &mut Shards,
) -> Result<(), RuntimeError> {
    let mut routed = Routed::default();
    let mut folds = Vec::new();
    let mut detects = Vec::new();
    // Series first, since rows are named after them; then rows, since they keep their numbers; then
    // what feeds what.
    for (kind, group, image) in images {
        if *kind == ImageKind::Series {
            folds.push((*group, series_names(directory, image)?));
        }
    }
    for (kind, group, image) in images {
        if *kind == ImageKind::Rows {
            for (signal, states) in row_names(settings, directory, image, &mut routed)? {
                detects.push((*group, signal, states));
            }
        }
    }
    // States are loaded before linking brings rows that no image holds, such as those of a new signal.
    let mut linked = Routed::default();
    directory.link(&mut linked.series, &mut linked.rows);
    routed.series = linked.series;
    linked.series = Vec::new();
    shards.route(&mut routed)?;
    load_states(shards, folds, detects)?;
    shards.route(&mut linked)
}

type FoldState = (KeyGroup, Vec<u8>);
type DetectState = (KeyGroup, usize, Vec<u8>);

fn load_states(
    shards: &mut Shards,
    folds: Vec<FoldState>,
    detects: Vec<DetectState>,
) -> Result<(), RuntimeError> {
    for (group, state) in folds {
        shards.on(group, move |shard| {
            let mut reader = Reader::new(&state);
            shard.fold.load(group, &mut reader).and_then(|()| reader.finish())
        })??;
    }
    for (group, signal, state) in detects {
        shards.on(group, move |shard| {
            let mut reader = Reader::new(&state);
            shard.detect.load(signal, group, &mut reader).and_then(|()| reader.finish())
        })??;
    }
    Ok(())
}

fn series_names(directory: &mut Directory, image: &[u8]) -> Result<Vec<u8>, Corrupt> {
    let mut reader = Reader::new(image);
    let mut sources = Vec::new();
    for _ in 0..reader.len(4, "sources")? {
        let name = String::decode(&mut reader)?;
        sources.push(directory.capped_source(&name));
    }
    for _ in 0..reader.len(7, "series")? {
        let key = decode_bytes(&mut reader, "series key")?;
        let kind = u8::decode(&mut reader)?;
        let kind = *Kind::ALL.get(kind as usize).ok_or(Corrupt::Value("kind"))?;
        let source = sources.get(usize::from(u16::decode(&mut reader)?));
        directory.restore_series(key, kind, source.copied().flatten());
    }
    let left = reader.left();
    Ok(reader.take(left, "series states")?.to_vec())
}

/// What an image calls a signal.
fn title(signal: &SignalSpec) -> String {
    format!("{} {}", signal.name, signal.meaning())
}

/// Names the rows of an image and returns each signal's states. Signals that the config no longer
/// has, or that mean something else now, are passed over: their rows start cold.
fn row_names(
    settings: &Settings,
    directory: &mut Directory,
    image: &[u8],
    routed: &mut Routed,
) -> Result<Vec<(usize, Vec<u8>)>, Corrupt> {
    let mut reader = Reader::new(image);
    let mut states = Vec::new();
    while reader.left() > 0 {
        let found = String::decode(&mut reader)?;
        let signal = settings.signals.iter().position(|signal| title(signal) == found);
        for _ in 0..reader.len(5, "rows")? {
            let key = decode_bytes(&mut reader, "row key")?;
            let stat = Stat::from_code(u8::decode(&mut reader)?).ok_or(Corrupt::Value("statistic"))?;
            if let Some(signal) = signal {
                let row = directory.restore_row(signal, key, stat, &mut routed.rows);
                row.ok_or(Corrupt::Value("row without its series"))?;
            }
        }
        let state = decode_bytes(&mut reader, "row states")?;
        states.extend(signal.map(|signal| (signal, state.to_vec())));
    }
    Ok(states)
}
