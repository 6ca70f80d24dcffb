//! Other writings of a request, and bytes by hand.
//!
//! A writing need not mean the same as what it was made of: prost is the judge of both. It is one that
//! prost seldom makes and others may: parts, any order, repeated and unknown fields, groups, lists that are
//! not packed, varints longer than they need be.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::requests;

pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `n`, by splitmix64.
    pub(super) fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    pub(super) fn in_(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
}

/// The fields of a message as key and value; `None` if it does not look like one, as texts and lists do not.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        if !(1..=14).contains(&(key >> 3)) {
            return None;
        }
        let begin = bytes;
        match key & 7 {
            0 => take_varint(&mut bytes).map(drop)?,
            1 => bytes = bytes.get(8..)?,
            5 => bytes = bytes.get(4..)?,
            2 => {
                let len = take_varint(&mut bytes)? as usize;
                fields.push((key, bytes.get(..len)?.to_vec()));
                bytes = &bytes[len..];
                continue;
            }
            _ => return None,
        }
        fields.push((key, begin[..begin.len() - bytes.len()].to_vec()));
    }
    Some(fields)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7F) << shift;
        if *first < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(mut value: u64, dice: &mut Dice, out: &mut Vec<u8>) {
    let longer = dice.in_(20);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    if longer {
        out.extend([value as u8 | 0x80, 0x80, 0x00]);
    } else {
        out.push(value as u8);
    }
}

/// Another writing of a message.
pub(super) fn rewritten(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut out = Vec::new();
    rewrite(bytes, &mut dice, &mut out);
    out
}

fn rewrite(bytes: &[u8], dice: &mut Dice, out: &mut Vec<u8>) {
    let Some(mut fields) = fields(bytes) else {
        out.extend_from_slice(bytes);
        return;
    };
    if dice.in_(3) {
        for i in (1..fields.len()).rev() {
            fields.swap(i, dice.roll(i as u64 + 1) as usize);
        }
    }
    if dice.in_(12) && !fields.is_empty() {
        let again = fields[dice.roll(fields.len() as u64) as usize].clone();
        fields.push(again);
    }
    for (key, value) in fields {
        if dice.in_(12) {
            unknown(dice, out);
        }
        if key & 7 != 2 {
            put_varint(key, dice, out);
            out.extend_from_slice(&value);
        } else if dice.in_(4) && is_list(key, &value) {
            for word in value.chunks(8) {
                put_varint(key - 1, dice, out);
                out.extend_from_slice(word);
            }
        } else {
            put_message(key, &value, dice, out);
        }
    }
}

/// Bounds or counts of a histogram, packed.
fn is_list(key: u64, value: &[u8]) -> bool {
    matches!(key >> 3, 6 | 7) && value.len().is_multiple_of(8) && fields(value).is_none()
}

fn put_message(key: u64, value: &[u8], dice: &mut Dice, out: &mut Vec<u8>) {
    let mut inner = Vec::new();
    rewrite(value, dice, &mut inner);
    let parts: Vec<Vec<u8>> = match self::fields(&inner) {
        // One message in two parts: what follows is merged into what came before.
        Some(fields) if fields.len() > 1 && dice.in_(6) => {
            let mut halves = vec![Vec::new(), Vec::new()];
            let cut = dice.roll(fields.len() as u64 + 1) as usize;
            for (i, (key, value)) in fields.into_iter().enumerate() {
                let half = &mut halves[usize::from(i >= cut)];
                put_varint(key, &mut Dice(1), half);
                if key & 7 == 2 {
                    put_varint(value.len() as u64, &mut Dice(1), half);
                }
                half.extend(value);
            }
            halves
        }
        _ => vec![inner],
    };
    for part in parts {
        put_varint(key, dice, out);
        put_varint(part.len() as u64, dice, out);
        out.extend(part);
    }
}

/// A field that OTLP does not have.
fn unknown(dice: &mut Dice, out: &mut Vec<u8>) {
    let field = 100 + dice.roll(20);
    match dice.roll(5) {
        0 => out.extend([(field << 3) as u8 | 0x80, (field >> 4) as u8, 5]),
        1 => {
            put_varint(field << 3 | 1, dice, out);
            out.extend([1; 8]);
        }
        2 => {
            put_varint(field << 3 | 5, dice, out);
            out.extend([2; 4]);
        }
        3 => {
            put_varint(field << 3 | 2, dice, out);
            out.extend([3, 0xFF, 0xFE, 0xFD]);
        }
        _ => {
            put_varint(field << 3 | 3, dice, out);
            if dice.in_(2) {
                unknown(dice, out);
            }
            put_varint(field << 3 | 4, dice, out);
        }
    }
}

/// Bytes that look a little like protobuf.
pub(super) fn noise() -> impl Strategy<Value = Vec<u8>> {
    let key =
        prop::sample::select(vec![0x0A_u8, 0x12, 0x1A, 0x2A, 0x3A, 0x11, 0x19, 0x21, 0x08, 0x0B, 0x0C, 0x80]);
    let byte = prop_oneof![2 => key, 2 => 0..12_u8, 1 => any::<u8>()];
    vec(byte, 0..60)
}

/// A payload in message fields of these numbers, the first outermost.
pub(super) fn enclosed(path: &[u8], payload: &[u8]) -> Vec<u8> {
    path.iter().rev().fold(payload.to_vec(), |inner, field| {
        let mut out = vec![field << 3 | 2];
        put_varint(inner.len() as u64, &mut Dice(1), &mut out);
        out.extend(inner);
        out
    })
}

/// A gauge's point with an attribute that is a list in a list in a list, as bytes.
pub(super) fn nested(depth: usize) -> Vec<u8> {
    let value = (0..depth).fold(Vec::new(), |inner, _| enclosed(&[5, 1], &inner));
    let mut point = enclosed(&[7], &[enclosed(&[1], b"deep"), enclosed(&[2], &value)].concat());
    point.extend([0x19, 1, 0, 0, 0, 0, 0, 0, 0, 0x31, 5, 0, 0, 0, 0, 0, 0, 0]);
    let metric = [enclosed(&[1], b"m"), enclosed(&[5, 1], &point)].concat();
    enclosed(&[1, 2, 2], &metric)
}

/// Some request that has every kind of message in it, the same each time.
pub(super) fn everything() -> ExportMetricsServiceRequest {
    let mut runner = TestRunner::deterministic();
    let mut all = ExportMetricsServiceRequest::default();
    while all.resource_metrics.len() < 3 {
        let tree = requests::metrics().new_tree(&mut runner).expect("no case is rejected");
        all.resource_metrics.extend(tree.current().resource_metrics.into_iter().filter(|resource| {
            let metrics: usize = resource.scope_metrics.iter().map(|scope| scope.metrics.len()).sum();
            (4..8).contains(&metrics) && prost::Message::encoded_len(resource) < 1_500
        }));
    }
    all
}
