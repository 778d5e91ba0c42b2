//! One file: from a stream to its place, checked, or not at all.

use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Progress;
use crate::dataset::{find, hexadecimal};
use crate::idx::open;
use crate::{SourceFile, WholeFile};

/// Takes a chunk and the bytes so far, the chunk's included.
type EachChunk<'a> = dyn FnMut(&[u8], u64) -> Result<(), InstallError> + 'a;

/// Whose fault it was.
pub(super) enum InstallError {
    /// The bytes did not arrive, or are not the right ones.
    Source(String),
    /// They could not be written.
    Write(io::Error),
}

/// Writes the raw bytes of `file` into `folder`, if they are what they should be.
pub(super) fn install(
    file: &SourceFile,
    folder: &Path,
    reader: &mut dyn Read,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), InstallError> {
    let mut whole = WholeFile::new_in(folder).map_err(InstallError::Write)?;
    progress(Progress { file: file.name, done: 0, total: file.bytes });
    let (bytes, sha256) = read_all(file, reader, &mut |chunk, done| {
        progress(Progress { file: file.name, done: done.min(file.bytes), total: file.bytes });
        whole.write_all(chunk).map_err(InstallError::Write)
    })?;
    check(file, bytes, &sha256).map_err(InstallError::Source)?;
    whole.sync().and_then(|synced| synced.keep(&folder.join(file.name))).map_err(InstallError::Write)
}

/// Reads a file to its end, hands each chunk on with the bytes so far, and answers bytes and SHA-256. One byte
/// more than it should have tells a file that is too long; no file is read further than that.
fn read_all(
    file: &SourceFile,
    reader: &mut dyn Read,
    each: &mut EachChunk<'_>,
) -> Result<(u64, String), InstallError> {
    let mut reader = reader.take(file.bytes + 1);
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok((done, hexadecimal(sha256))),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(InstallError::Source(format!("after {done} bytes: {error}"))),
        };
        sha256.update(&buffer[..count]);
        done += count as u64;
        each(&buffer[..count], done)?;
    }
}

fn check(file: &SourceFile, bytes: u64, sha256: &str) -> Result<(), String> {
    if bytes > file.bytes {
        return Err(format!("expected {} bytes, found more", file.bytes));
    }
    if bytes < file.bytes {
        return Err(format!("expected {} bytes, found {bytes}", file.bytes));
    }
    if sha256 != file.sha256 {
        return Err(format!("expected sha-256 {}, found {sha256}", file.sha256));
    }
    Ok(())
}

/// Whether the right file is there already, as it would be read: raw or compressed, and no pipe.
pub(super) fn is_installed(file: &SourceFile, folder: &Path) -> bool {
    find(folder, file.name).is_some_and(|path| open(&path).is_ok_and(|opened| is_right(file, opened)))
}

fn is_right(file: &SourceFile, mut reader: impl Read) -> bool {
    let read = read_all(file, &mut reader, &mut |_, _| Ok(()));
    read.is_ok_and(|(bytes, sha256)| check(file, bytes, &sha256).is_ok())
}
