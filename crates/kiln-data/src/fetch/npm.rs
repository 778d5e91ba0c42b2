//! The npm registry, through the npm client as it is configured on this machine.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;

use crate::whole_file::temporary;

/// What of npm's messages goes into an error.
const MESSAGE_MAX: usize = 400;

/// A package that has been downloaded; it is removed when dropped.
pub(super) struct Packed {
    _folder: tempfile::TempDir,
    archive: PathBuf,
}

/// Downloads a package into a temporary folder inside `folder`.
pub(super) fn pack(package: &str, folder: &Path, timeout: Duration) -> Result<Packed, String> {
    let text = |error: io::Error| error.to_string();
    let temporary = temporary().tempdir_in(folder).map_err(text)?;
    let mut messages = tempfile::tempfile_in(temporary.path()).map_err(text)?;
    let mut child = Command::new("npm")
        .args(["pack", "--silent", package])
        .current_dir(temporary.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages.try_clone().map_err(text)?)
        .spawn()
        .map_err(|error| format!("npm could not be started: {error}"))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(text)? {
            break status;
        }
        if started.elapsed() > timeout {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("npm took longer than {} s", timeout.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if !status.success() {
        let mut said = String::new();
        messages.rewind().map_err(text)?;
        let _ = messages.take(MESSAGE_MAX as u64).read_to_string(&mut said);
        return Err(format!("npm failed ({status}): {}", said.trim()));
    }
    let entries = std::fs::read_dir(temporary.path()).map_err(text)?;
    let archive =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension() == Some("tgz".as_ref()));
    match archive {
        Some(archive) => Ok(Packed { _folder: temporary, archive }),
        None => Err("npm wrote no archive".to_owned()),
    }
}

impl Packed {
    /// Calls `take` with each file. Its errors end the walk; the inner result is what is wrong with the archive.
    pub(super) fn each_file<E>(
        &self,
        mut take: impl FnMut(&Path, &mut dyn Read) -> Result<(), E>,
    ) -> Result<Result<(), String>, E> {
        let mut archive = match File::open(&self.archive) {
            Ok(file) => tar::Archive::new(GzDecoder::new(io::BufReader::new(file))),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let entries = match archive.entries() {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for entry in entries {
            let (mut entry, path) = match entry.and_then(|e| e.path().map(|p| p.into_owned()).map(|p| (e, p)))
            {
                Ok(found) => found,
                Err(error) => return Ok(Err(error.to_string())),
            };
            take(&path, &mut entry)?;
        }
        Ok(Ok(()))
    }
}
