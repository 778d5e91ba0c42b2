//! Files that are either the old or the new one, whatever happens meanwhile.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Context;

/// Replaces `path` by `bytes`: temporary file beside it, fsync, rename, fsync of the folder.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    write_and_rename(folder, path, bytes)
        .with_context(|| format!("{}: {} bytes could not be written", path.display(), bytes.len()))
}

fn write_and_rename(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".kiln-").suffix(".tmp").tempfile_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private; what is kept is readable as other files are.
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Makes a folder and what is above it, and finds out before any work whether it can be written.
pub(crate) fn writable_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| tempfile::Builder::new().prefix(".kiln-").suffix(".tmp").tempfile_in(path))
        .map(drop)
        .with_context(|| format!("{}: expected a folder that can be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        replace(&path, b"old").unwrap();
        // A folder cannot be replaced by a file: the rename fails after the write.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        let error = replace(&taken, b"new").unwrap_err();
        assert!(format!("{error:#}").contains("taken: 3 bytes could not be written"), "{error:#}");
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }
}
