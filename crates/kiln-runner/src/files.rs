//! Files that are either the old or the new one, whatever happens meanwhile.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kiln_data::{SyncedFile, WholeFile};

/// Files that belong together: each is written under a temporary name when it is added, and all are renamed once they are there.
#[derive(Default)]
pub(crate) struct Replacement(Vec<Written>);

struct Written {
    file: SyncedFile,
    path: PathBuf,
    bytes: usize,
}

impl Replacement {
    pub(crate) fn add(&mut self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        let file = write(WholeFile::folder_of(path), bytes).with_context(|| failed(path, bytes.len()))?;
        self.0.push(Written { file, path: path.to_owned(), bytes: bytes.len() });
        Ok(())
    }

    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let keep = |Written { file, path, bytes }| file.keep(&path).with_context(|| failed(&path, bytes));
        self.0.into_iter().try_for_each(keep)
    }
}

fn failed(path: &Path, bytes: usize) -> String {
    format!("{}: {bytes} bytes could not be written", path.display())
}

/// Also where the folder has been moved or removed meanwhile: what was trained is not lost by that.
fn write(folder: &Path, bytes: &[u8]) -> std::io::Result<SyncedFile> {
    fs::create_dir_all(folder)?;
    let mut file = WholeFile::result_in(folder)?;
    file.write_all(bytes)?;
    file.sync()
}

/// A folder that no other run writes to while this lives, if its file system has locks.
#[must_use]
pub(crate) struct Lock {
    /// Open, which holds the lock.
    folder: Option<File>,
    /// Folders that were made for it, inner ones first.
    made: Vec<PathBuf>,
}

impl Drop for Lock {
    /// Removes the folders that were made and have nothing in them: what came to nothing leaves nothing.
    fn drop(&mut self) {
        let _kept = self.made.iter().try_for_each(fs::remove_dir);
    }
}

/// Makes a folder and what is above it, removes what killed runs have left there, and finds out before any work whether these files can be
/// written there, and no other run writes there.
pub(crate) fn writable_folder<const N: usize>(path: &Path, files: [&Path; N]) -> anyhow::Result<Lock> {
    let failed = || format!("{}: expected a folder that can be read and written", path.display());
    if !path.is_dir()
        && let Ok(found) = path.symlink_metadata()
    {
        let found = if found.is_symlink() { "a symbolic link to none" } else { "what is none" };
        bail!("{}: expected a folder, found {found}", path.display());
    }
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && folder.symlink_metadata().is_err();
    let made = path.ancestors().take_while(missing).map(Path::to_path_buf).collect();
    fs::create_dir_all(path).with_context(failed)?;
    let lock = Lock { folder: lock(path)?, made };
    if lock.folder.is_some() {
        WholeFile::remove_results(path).with_context(failed)?;
    }
    let cleaned = WholeFile::remove_stale(path);
    cleaned.and_then(|()| WholeFile::result_in(path).map(drop)).with_context(failed)?;
    for file in files {
        ensure!(!file.is_dir(), "{}: expected a file that can be replaced, found a folder", file.display());
    }
    Ok(lock)
}

/// A folder, locked, if it can be. A process that was killed just now may hold it a moment longer.
fn lock(path: &Path) -> anyhow::Result<Option<File>> {
    let Ok(folder) = File::open(path) else { return Ok(None) };
    let until = Instant::now() + Duration::from_millis(500);
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(Some(folder)),
            Err(TryLockError::Error(_)) => return Ok(None), // a file system without locks
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let name = path.display();
                bail!(
                    "{name}: expected a folder of no other run, found one that is under way; --out names another"
                );
            }
        }
    }
}

/// Refuses a folder in which such a file lies, which results of another kind would not fit.
pub(crate) fn refuse(folder: &Path, file: &str, of: &str) -> anyhow::Result<()> {
    let path = folder.join(file);
    let there = path.symlink_metadata().is_ok();
    ensure!(!there, "{}: expected no results of {of} in the folder; --out names another", path.display());
    Ok(())
}

/// When results are written while there are more to come: at most once a second, as what they are of may take milliseconds, and so does a
/// disk.
#[derive(Default)]
pub(crate) struct Pace {
    written: Option<Instant>,
}

impl Pace {
    const EVERY: Duration = Duration::from_secs(1);

    pub(crate) fn is_due(&self) -> bool {
        self.written.is_none_or(|at| at.elapsed() >= Self::EVERY)
    }

    pub(crate) fn written(&mut self) {
        self.written = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(files: &[(&Path, &[u8])]) -> anyhow::Result<()> {
        let mut replacement = Replacement::default();
        files.iter().try_for_each(|(path, bytes)| replacement.add(path, bytes))?;
        replacement.finish()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        replace(&[(&path, b"old")]).unwrap();
        // A folder cannot be replaced by a file: the rename fails after the write.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        let error = replace(&[(&taken, b"new")]).unwrap_err();
        assert!(format!("{error:#}").contains("taken: 3 bytes could not be written"), "{error:#}");
        replace(&[(&path, b"new")]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
        // What belongs together is written before any of it is replaced.
        let nowhere = path.join("metrics"); // beneath a file
        let error = replace(&[(&path, b"newer"), (&nowhere, b"newer")]).unwrap_err();
        assert!(format!("{error:#}").contains("model/metrics: 5 bytes could not be written"), "{error:#}");
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_folder_is_made_again_where_it_went_and_removed_where_nothing_came_of_it() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("runs/mnist");
        drop(writable_folder(&folder, []).unwrap());
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 0, "what was made goes");

        let lock = writable_folder(&folder, []).unwrap();
        fs::rename(&folder, above.path().join("elsewhere")).unwrap();
        replace(&[(&folder.join("model"), b"new")]).unwrap();
        drop(lock);
        assert_eq!(fs::read(folder.join("model")).unwrap(), b"new");

        let mine = above.path().join("mine");
        fs::create_dir(&mine).unwrap();
        drop(writable_folder(&mine, []).unwrap());
        assert!(mine.is_dir(), "what was there stays");
    }

    /// That of a run that was killed goes, that of a fetch that may still be under way stays, and so does what is somebody's own.
    #[test]
    fn stale_temporary_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        let names = [".kiln-1.tmp", ".kiln-2.tmp", ".kiln-result-3.tmp", "kiln.tmp"];
        for (name, time) in names.into_iter().zip([Some(hours_ago), None, None, Some(hours_ago)]) {
            let file = fs::File::create(path(name)).unwrap();
            if let Some(time) = time {
                file.set_modified(time).unwrap();
            }
        }
        let there = || names.map(|name| path(name).exists());
        WholeFile::remove_stale(folder.path()).unwrap();
        assert_eq!(there(), [false, true, true, true]);
        let _lock = writable_folder(folder.path(), []).unwrap();
        assert_eq!(there(), [false, true, false, true]);
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_told_before_any_work() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrics.jsonl");
        drop(writable_folder(folder.path(), [&file]).unwrap());
        fs::create_dir(&file).unwrap();
        let error = writable_folder(folder.path(), [&file]).err().unwrap().to_string();
        assert!(
            error.ends_with("metrics.jsonl: expected a file that can be replaced, found a folder"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_folder_is_told_apart() {
        let above = tempfile::tempdir().unwrap();
        let refused = |path: &Path| writable_folder(path, []).err().unwrap().to_string();
        let file = above.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(refused(&file).ends_with("file: expected a folder, found what is none"));
        #[cfg(unix)]
        {
            let link = above.path().join("link");
            std::os::unix::fs::symlink(above.path().join("nowhere"), &link).unwrap();
            assert!(refused(&link).ends_with("link: expected a folder, found a symbolic link to none"));
            assert!(refused(Path::new("/dev/null")).contains("expected a folder"));
        }
    }

    #[test]
    fn a_folder_has_one_run_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = writable_folder(folder.path(), []).unwrap();
        let error = writable_folder(folder.path(), []).err().unwrap().to_string();
        assert!(error.contains("expected a folder of no other run, found one that is under way"), "{error}");
        drop(first);
        drop(writable_folder(folder.path(), []).unwrap());
    }
}
