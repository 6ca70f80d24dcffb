//! Reads small files that others put there: secrets, certificates, commands.
//!
//! Never waits for the other end of a pipe, never follows a link where the caller forbids it, and never takes more
//! memory than its bound. A mount that hangs blocks the calling thread all the same: callers that must go on read on a
//! thread of their own, with a deadline.
#![warn(missing_docs)]

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Why a file was not read. The messages go behind the file's path.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be opened or read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A folder, a pipe, a socket, a device, or a link where none is followed.
    #[error("is not a file, but a folder, pipe, socket, device or link")]
    NotRegular,
    /// It has more bytes than this.
    #[error("is longer than {0} bytes")]
    TooLong(u64),
}

/// What was read, and whose it is.
#[derive(Debug)]
pub struct RegularFile {
    /// All of its bytes.
    pub bytes: Vec<u8>,
    /// Its permissions, without its type.
    pub mode: u32,
    /// Its owner.
    pub owner: u32,
}

/// Reads a regular file of at most `most` bytes. A symbolic link is followed: Kubernetes mounts every secret as one.
pub fn read_regular(path: &Path, most: u64) -> Result<RegularFile, ReadError> {
    read(path, most, OFlags::empty())
}

/// Reads a regular file of at most `most` bytes. A symbolic link as the last part of the path is refused.
pub fn read_unlinked(path: &Path, most: u64) -> Result<RegularFile, ReadError> {
    read(path, most, OFlags::NOFOLLOW)
}

fn read(path: &Path, most: u64, more: OFlags) -> Result<RegularFile, ReadError> {
    // Without NONBLOCK the open of a pipe waits for its writer; it changes nothing about a regular file. CLOEXEC is
    // what std always sets.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | more;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match opened {
        Ok(file) => file,
        // Of a link that is not followed, and of a socket.
        Err(error) if is_not_regular(&error) => return Err(ReadError::NotRegular),
        Err(error) => return Err(error.into()),
    };
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(ReadError::NotRegular);
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(ReadError::TooLong(most));
    }
    Ok(RegularFile { bytes, mode: about.mode() & 0o7777, owner: about.uid() })
}

fn is_not_regular(error: &io::Error) -> bool {
    let of = [rustix::io::Errno::LOOP, rustix::io::Errno::NXIO, rustix::io::Errno::NODEV];
    error.raw_os_error().is_some_and(|raw| of.iter().any(|errno| errno.raw_os_error() == raw))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// Scenario: a file, links to it and to itself, a pipe without a writer, a socket, a folder, a device, nothing at all.
    /// Guarantee: only the file is read, and what is a link only where links are followed. None of them waits.
    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "key\n").expect("written");
        std::fs::set_permissions(at("file"), PermissionsExt::from_mode(0o640)).expect("ours");
        symlink(at("file"), at("link")).expect("linked");
        symlink(at("loop"), at("loop")).expect("linked");
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
        let _socket = UnixListener::bind(at("socket")).expect("bound");

        let file = read_regular(&at("file"), 4).expect("a file");
        assert_eq!((file.bytes.as_slice(), file.mode), (&b"key\n"[..], 0o640));
        assert_eq!(file.owner, std::fs::metadata(folder.path()).expect("there").uid());
        assert_eq!(read_regular(&at("link"), 4).expect("followed").bytes, b"key\n");
        for path in [at("link"), at("loop"), at("pipe"), at("socket"), at("."), "/dev/null".into()] {
            let error = read_unlinked(&path, 4).expect_err("no file");
            assert!(matches!(error, ReadError::NotRegular), "{}: {error}", path.display());
        }
        for path in [at("loop"), at("pipe"), at("socket"), at("."), "/dev/zero".into()] {
            let error = read_regular(&path, 4).expect_err("no file");
            assert!(matches!(error, ReadError::NotRegular), "{}: {error}", path.display());
        }
        let error = read_regular(&at("none"), 4).expect_err("nothing there");
        assert!(matches!(&error, ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound), "{error}");
    }

    /// Guarantee: a file of exactly the bound is read, one of a byte more is not, however long it is.
    #[test]
    fn the_bound_is_exact() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (length, fits) in [(0, true), (10, true), (11, false), (100_000, false)] {
            std::fs::write(file.path(), vec![b'x'; length]).expect("written");
            let read = read_regular(file.path(), 10);
            assert_eq!(read.is_ok(), fits, "{length}");
            assert!(fits || matches!(read, Err(ReadError::TooLong(10))), "{length}");
        }
    }
}
