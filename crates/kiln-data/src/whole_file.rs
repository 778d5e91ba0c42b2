//! Files that are the old or the new one, whatever happens meanwhile.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

const PREFIX: &str = ".kiln-";
/// Of what [`WholeFile::result_in`] makes.
const PREFIX_RESULT: &str = ".kiln-result-";
const SUFFIX: &str = ".tmp";
/// A temporary file this old belongs to a process that was killed.
const STALE: Duration = Duration::from_secs(3600);

/// A file under a temporary name, which is removed unless [`SyncedFile::keep`] gives it another.
#[derive(Debug)]
pub struct WholeFile(NamedTempFile);

/// A [`WholeFile`] that is on the disk.
#[derive(Debug)]
pub struct SyncedFile(NamedTempFile);

impl WholeFile {
    /// An empty one.
    ///
    /// # Errors
    /// Where the folder is not there or cannot be written.
    pub fn new_in(folder: &Path) -> io::Result<Self> {
        Self::named_in(folder, PREFIX)
    }

    /// An empty one, of who alone writes results to a folder: see [`WholeFile::remove_results`].
    ///
    /// # Errors
    /// Where the folder is not there or cannot be written.
    pub fn result_in(folder: &Path) -> io::Result<Self> {
        Self::named_in(folder, PREFIX_RESULT)
    }

    fn named_in(folder: &Path, prefix: &str) -> io::Result<Self> {
        let mut names = temporary();
        names.prefix(prefix);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // A temporary file is private; what is kept is as readable as the user's other files, by their umask.
            names.permissions(fs::Permissions::from_mode(0o666));
        }
        Ok(Self(names.tempfile_in(folder)?))
    }

    /// The folder of a file.
    pub fn folder_of(path: &Path) -> &Path {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Removes what processes that were killed have left in a folder, more than an hour ago.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn remove_stale(folder: &Path) -> io::Result<()> {
        Self::remove(folder, PREFIX, STALE)
    }

    /// Removes what processes that were killed have left of results in a folder, whenever that was: for who alone writes them there.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn remove_results(folder: &Path) -> io::Result<()> {
        Self::remove(folder, PREFIX_RESULT, Duration::ZERO)
    }

    fn remove(folder: &Path, prefix: &str, age_min: Duration) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(SUFFIX));
            let old = |modified| SystemTime::now().duration_since(modified).is_ok_and(|age| age >= age_min);
            // Another process may be cleaning up too.
            if ours && entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(old) {
                let path = entry.path();
                let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
        }
        Ok(())
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// Where it does not get there.
    pub fn sync(self) -> io::Result<SyncedFile> {
        self.0.as_file().sync_all()?;
        Ok(SyncedFile(self.0))
    }
}

impl SyncedFile {
    /// Renames it, so that the name holds a whole file even if the power fails. The path is in the folder of
    /// [`WholeFile::new_in`].
    ///
    /// # Errors
    /// Where that fails; a file that had the name stays.
    pub fn keep(self, path: &Path) -> io::Result<()> {
        self.0.persist(path).map_err(|error| error.error)?;
        #[cfg(unix)]
        File::open(WholeFile::folder_of(path))?.sync_all()?;
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Makes files and folders with temporary names.
pub(crate) fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut names = tempfile::Builder::new();
    names.prefix(PREFIX).suffix(SUFFIX);
    names
}
