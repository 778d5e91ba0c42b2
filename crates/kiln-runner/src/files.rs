//! Files that are either the old or the new one, whatever happens meanwhile.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, ensure};
use tempfile::NamedTempFile;

/// Replaces files of a folder that belong together, each by its bytes: temporary files beside them, fsync, and once all are
/// written, renames, fsync of the folder.
pub(crate) fn replace<const N: usize>(files: [(&Path, &[u8]); N]) -> anyhow::Result<()> {
    let failed =
        |path: &Path, bytes: &[u8]| format!("{}: {} bytes could not be written", path.display(), bytes.len());
    let mut written = Vec::new();
    for (path, bytes) in files {
        written.push(write(folder_of(path), bytes).with_context(|| failed(path, bytes))?);
    }
    for (new, (path, bytes)) in written.into_iter().zip(files) {
        rename(new, path).with_context(|| failed(path, bytes))?;
    }
    Ok(())
}

/// The folder of a file.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".kiln-").suffix(".tmp").tempfile_in(folder)
}

fn write(folder: &Path, bytes: &[u8]) -> std::io::Result<NamedTempFile> {
    let mut file = temporary(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private; what is kept is readable as other files are.
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    Ok(file)
}

fn rename(file: NamedTempFile, path: &Path) -> std::io::Result<()> {
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    File::open(folder_of(path))?.sync_all()?;
    Ok(())
}

/// Makes a folder and what is above it, and finds out before any work whether these files can be written there.
pub(crate) fn writable_folder<const N: usize>(path: &Path, files: [&Path; N]) -> anyhow::Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| temporary(path))
        .map(drop)
        .with_context(|| format!("{}: expected a folder that can be written", path.display()))?;
    for file in files {
        ensure!(!file.is_dir(), "{}: expected a file that can be replaced, found a folder", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        replace([(&path, b"old")]).unwrap();
        // A folder cannot be replaced by a file: the rename fails after the write.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        let error = replace([(&taken, b"new")]).unwrap_err();
        assert!(format!("{error:#}").contains("taken: 3 bytes could not be written"), "{error:#}");
        replace([(&path, b"new")]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
        // What belongs together is written before any of it is replaced.
        let nowhere = folder.path().join("nowhere/metrics");
        let error = replace([(&path, b"newer"), (&nowhere, b"newer")]).unwrap_err();
        assert!(format!("{error:#}").contains("nowhere/metrics: 5 bytes could not be written"), "{error:#}");
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_told_before_any_work() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrics.jsonl");
        writable_folder(folder.path(), [&file]).unwrap();
        fs::create_dir(&file).unwrap();
        let error = writable_folder(folder.path(), [&file]).unwrap_err().to_string();
        assert!(
            error.ends_with("metrics.jsonl: expected a file that can be replaced, found a folder"),
            "{error}"
        );
    }
}
