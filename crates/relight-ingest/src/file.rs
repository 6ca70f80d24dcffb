//! Opens files and standard input, decompresses, and counts the bytes taken from disk.
//!
//! Whether something is compressed is told by its first bytes, never by its name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::IngestError;

const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];
pub(crate) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// Larger windows than `zstd -19` makes are refused: 2^27 is what `zstd -d` itself allows.
pub(crate) const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const READ_BYTES: usize = 128 << 10;

/// Decompressed bytes of a capture.
pub(crate) type Bytes = Box<dyn Read + Send>;

/// How far a file has been read; shared with the reader that is buried under decompression.
#[derive(Debug, Clone, Default)]
pub(crate) struct Consumed(Arc<AtomicU64>);

impl Consumed {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Counting<R> {
    inner: R,
    consumed: Consumed,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.consumed.0.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// An opened capture: its bytes, its read position on disk, its size on disk (0 = not known).
pub(crate) struct Opened {
    pub(crate) bytes: Bytes,
    pub(crate) consumed: Consumed,
    pub(crate) total: u64,
}

/// Whether the path stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

pub(crate) fn open(path: &Path) -> Result<Opened, IngestError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => IngestError::Missing { path: path.to_owned() },
        _ => IngestError::Open { path: path.to_owned(), source },
    };
    let consumed = Consumed::default();
    let (inner, total): (Bytes, u64) = if is_stdin(path) {
        (Box::new(io::stdin()), 0)
    } else {
        let file = File::open(path).map_err(failed)?;
        let total = file.metadata().map_err(failed)?.len();
        (Box::new(file), total)
    };
    let counting = Counting { inner, consumed: consumed.clone() };
    let bytes = decompress(BufReader::with_capacity(READ_BYTES, counting)).map_err(failed)?;
    Ok(Opened { bytes, consumed, total })
}

/// The file itself, for reading it once more, if it is one that can be and is not compressed.
pub(crate) fn again(path: &Path) -> io::Result<Option<File>> {
    if is_stdin(path) {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let mut head = [0; 4];
    let n = file.read(&mut head)?;
    let is_packed = head[..n].starts_with(&GZIP_MAGIC) || head[..n].starts_with(&ZSTD_MAGIC);
    let is_plain = file.metadata()?.is_file() && !is_packed;
    file.seek(io::SeekFrom::Start(0)).map(|_| is_plain.then_some(file))
}

fn decompress<R: Read + Send + 'static>(mut reader: BufReader<R>) -> io::Result<Bytes> {
    // A file has its first bytes at once; a pipe that sends fewer than four at first is taken as plain.
    let head = reader.fill_buf()?;
    if head.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if head.starts_with(&ZSTD_MAGIC) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(reader))
}
