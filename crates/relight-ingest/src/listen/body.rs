//! Reads a request's body and inflates it, with a bound that is checked before memory grows.

use std::io::Read;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use tokio::time::Instant;

use super::front::{Fault, Held};
use super::stats::{Outcome, add};

/// A body must be there within this: at 16 MiB that is 546 KiB/s, and no sender trickles for longer.
const BODY: Duration = Duration::from_secs(30);
/// So many bytes of a body must come within each [`PACE`]: 1 KiB/s, which a modem has. The time leaves room for a
/// machine that is suspended for a moment.
const PACE_BYTES: usize = 10 << 10;
const PACE: Duration = Duration::from_secs(10);
/// A first frame that is smaller is copied where more will follow: it would keep all of the buffer that it was read into.
const KEPT_FRAME_BYTES: usize = 16 << 10;
/// Memory that is taken at once for a body that says how long it will be.
const FIRST_BYTES: u64 = 512 << 10;
/// What is packed tighter than this is a bomb; metrics reach 10 to 60. gzip cannot go beyond 1,032.
const MAX_RATIO: usize = 256;
/// Small requests may have any ratio.
const FREE_BYTES: usize = 8 << 20;
/// From here on a body is inflated off the threads that serve: about 3 ms of work.
pub(super) const OFFLOAD_BYTES: usize = 256 << 10;
/// Largest window of zstd: 8 MiB, what its own format asks every decoder to support.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is packed. One layer only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Some(Self::Identity),
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Reads a body as it was sent, and takes a permit to work on it once it is whole.
pub(super) async fn read(body: Incoming, limit: usize, held: &mut Held) -> Result<Bytes, Fault> {
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large("the body", limit));
    }
    let wire = frames(body, limit, held).await?;
    held.work()?;
    Ok(wire)
}

async fn frames(mut body: Incoming, limit: usize, held: &mut Held) -> Result<Bytes, Fault> {
    let mut only: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    let mut pace = Pace::begin();
    // All of it or nothing: bodies that each hold a part of what is left would starve each other.
    let expected = body.size_hint().exact();
    if let Some(bytes) = expected {
        held.grow(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    }
    while let Some(frame) = pace.next(&mut body).await? {
        let frame = frame.map_err(|error| Fault::new(Outcome::Disconnected, error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        pace.brought(data.len());
        let before = only.as_ref().map_or(whole.len(), Bytes::len);
        if before + data.len() > limit {
            return Err(too_large("the body", limit));
        }
        if expected.is_none() {
            held.grow(data.len())?;
        }
        add(&held.stats().wire_bytes, data.len() as u64);
        // A body that came in one piece is not copied.
        if before == 0 && (body.is_end_stream() || data.len() >= KEPT_FRAME_BYTES) {
            only = Some(data);
            continue;
        }
        if let Some(first) = only.take() {
            whole.reserve(body.size_hint().lower().min(FIRST_BYTES) as usize + first.len() + data.len());
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(only.unwrap_or_else(|| whole.freeze()))
}

/// How fast a body must come.
struct Pace {
    /// When all of it must be there.
    end: Instant,
    /// When the next bytes must be there.
    due: Instant,
    /// How many they are.
    owed: usize,
}

impl Pace {
    fn begin() -> Self {
        let now = Instant::now();
        Self { end: now + BODY, due: now + PACE, owed: PACE_BYTES }
    }

    /// The next frame, unless it comes too late.
    async fn next(&self, body: &mut Incoming) -> Result<Option<Result<Frame<Bytes>, hyper::Error>>, Fault> {
        let late = |_| {
            let message = format!(
                "the body came too slowly: less than {PACE_BYTES} bytes within {} s, or not all of it within {} s",
                PACE.as_secs(),
                BODY.as_secs()
            );
            Fault::new(Outcome::TimedOut, message)
        };
        tokio::time::timeout_at(self.due.min(self.end), body.frame()).await.map_err(late)
    }

    fn brought(&mut self, bytes: usize) {
        self.owed = self.owed.saturating_sub(bytes);
        if self.owed == 0 {
            (self.due, self.owed) = (Instant::now() + PACE, PACE_BYTES);
        }
    }
}

fn too_large(what: &str, limit: usize) -> Fault {
    Fault::new(Outcome::TooLarge, format!("{what} has more than {limit} bytes"))
}

/// Inflates a body; off the serving threads if it is a large one.
pub(super) async fn inflate(
    coding: Coding,
    wire: Bytes,
    limit: usize,
    mut held: Held,
) -> Result<(Bytes, Held), Fault> {
    let (stats, packed) = (held.stats(), wire.len());
    let inflated = if coding == Coding::Identity {
        if wire.len() > limit {
            return Err(too_large("the body", limit));
        }
        (wire, held)
    } else {
        let (bytes, mut held) = if packed < OFFLOAD_BYTES {
            (inflate_now(coding, &wire, limit, &mut held)?, held)
        } else {
            let work = move || inflate_now(coding, &wire, limit, &mut held).map(|bytes| (bytes, held));
            off_thread(work).await?
        };
        // What it was packed in is gone.
        held.shrink(packed);
        (bytes, held)
    };
    add(&stats.inflated_bytes, inflated.0.len() as u64);
    Ok(inflated)
}

/// Does long work off the serving threads. Work that panics spoils its own request only.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Fault::malformed("the body cannot be decoded")))
}

fn inflate_now(coding: Coding, wire: &[u8], limit: usize, held: &mut Held) -> Result<Bytes, Fault> {
    let allowed = limit.min(FREE_BYTES.max(wire.len().saturating_mul(MAX_RATIO)));
    match coding {
        Coding::Identity => Ok(Bytes::copy_from_slice(wire)),
        Coding::Gzip => gzip(wire, allowed, held),
        Coding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(wire).map_err(|e| damaged("zstd", &e))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|e| damaged("zstd", &e))?;
            stream("zstd", decoder, allowed, held)
        }
    }
}

fn damaged(what: &str, why: &impl std::fmt::Display) -> Fault {
    Fault::malformed(format!("the {what} body is damaged: {why}"))
}

/// The trailer says how much there will be, so that memory is taken once, and a body that lies is found out
/// by its checksum. Several members are legal and rare: they go the slower way, as does what is damaged.
fn gzip(wire: &[u8], allowed: usize, held: &mut Held) -> Result<Bytes, Fault> {
    let Some((_, trailer)) = wire.split_last_chunk::<8>() else {
        return Err(damaged("gzip", &"it ends too soon"));
    };
    let [a, b, c, d, len @ ..] = *trailer;
    let (sum, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(len) as usize);
    if len <= allowed && !may_have_members(wire) {
        held.grow(len)?;
        // The checksum is taken below: the decoder's own costs more than its inflating.
        let options = zune_inflate::DeflateOptions::default()
            .set_limit(len)
            .set_size_hint(len + 1)
            .set_confirm_checksum(false);
        let inflated = zune_inflate::DeflateDecoder::new_with_options(wire, options).decode_gzip();
        if let Ok(bytes) = inflated
            && bytes.len() == len
            && crc32fast::hash(&bytes) == sum
        {
            return Ok(bytes.into());
        }
    }
    stream("gzip", flate2::bufread::MultiGzDecoder::new(wire), allowed, held)
}

/// Whether a second member may begin somewhere: the decoder stops behind the first and does not say where,
/// and two equal members have one trailer. Chance finds these three bytes in one body of 600.
fn may_have_members(wire: &[u8]) -> bool {
    let starts = wire.iter().skip(1).zip(wire.iter().skip(2)).zip(wire.iter().skip(3));
    // Without a way out early it is done 16 bytes at a time.
    let is = |byte: &u8, wanted| u8::from(*byte == wanted);
    starts.fold(0, |found, ((a, b), c)| found | (is(a, 0x1f) & is(b, 0x8b) & is(c, 8))) != 0
}

/// Reads to the end or to the bound, whichever comes first. Memory grows by doubling, never past the bound.
fn stream(what: &str, mut from: impl Read, allowed: usize, held: &mut Held) -> Result<Bytes, Fault> {
    let (mut whole, mut len) = (Vec::new(), 0);
    loop {
        if len == whole.len() {
            // One byte more than allowed, to tell a body that ends there from one that goes on.
            let more = len.max(64 << 10).min(allowed + 1 - len);
            held.grow(more)?;
            whole.reserve_exact(more);
            whole.resize(len + more, 0);
        }
        match from.read(&mut whole[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) => return Err(damaged(what, &error)),
        }
        if len > allowed {
            return Err(too_large("the inflated body", allowed));
        }
    }
    whole.truncate(len);
    Ok(whole.into())
}
