//! A data set in memory, and where it lies on disk.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};

use crate::{IdxError, Images, Source, SourceFile, read_images, read_labels};

/// Images and their labels, as many of one as of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// (len, height, width) pixels.
    pub images: Images,
    /// (len) classes.
    pub labels: Vec<u8>,
}

impl Split {
    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none; a split that was read never is.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Values a sample: height times width.
    pub fn width(&self) -> usize {
        self.images.height * self.images.width
    }
}

/// A data set: samples to train on, and others to test with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Which it is.
    pub source: Source,
    /// Classes of its labels.
    pub classes: usize,
    /// Samples to train on.
    pub train: Split,
    /// Samples to test with.
    pub test: Split,
}

impl Dataset {
    /// SHA-256 of all samples, 64 hexadecimal digits: equal where shapes, pixels, labels and their order are, however the files that they
    /// came from are compressed.
    pub fn sha256(&self) -> String {
        let mut sha256 = Sha256::new();
        for Split { images: Images { pixels, count, height, width }, labels } in [&self.train, &self.test] {
            for size in [count, height, width] {
                sha256.update((*size as u64).to_le_bytes());
            }
            sha256.update(pixels);
            sha256.update(labels);
        }
        hexadecimal(sha256)
    }
}

/// What was hashed comes to this, in hexadecimal digits.
pub(crate) fn hexadecimal(sha256: Sha256) -> String {
    sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a data set could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is wrong.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// A file is not there.
    #[error("{}: expected {name} or {name}.gz, found neither; `kiln data fetch {source_name}` fetches it", folder.display())]
    Missing {
        /// The folder of the data set.
        folder: PathBuf,
        /// The file.
        name: &'static str,
        /// The data set.
        source_name: Source,
    },
    /// Images and labels are not as many.
    #[error("{}: {images} has {image_count} images, but {labels} has {label_count} labels; expected as many", folder.display())]
    Counts {
        /// The folder of the data set.
        folder: PathBuf,
        /// The file of the images.
        images: &'static str,
        /// The file of the labels.
        labels: &'static str,
        /// How many images there are.
        image_count: usize,
        /// How many labels there are.
        label_count: usize,
    },
    /// Training and test images have different shapes.
    #[error("{}: training images are {train:?} pixels and test images {test:?}; expected one shape", folder.display())]
    Shapes {
        /// The folder of the data set.
        folder: PathBuf,
        /// Height and width of the training images.
        train: (usize, usize),
        /// Height and width of the test images.
        test: (usize, usize),
    },
    /// The platform has no place for caches, and none was named.
    #[error("no folder for data: expected KILN_DATA, or a home directory for the cache, found neither")]
    NoFolder,
}

/// Where data sets lie unless told otherwise: `KILN_DATA`, or `kiln` in the platform's cache directory.
///
/// # Errors
/// [`Error::NoFolder`] where neither is known.
pub fn default_dir() -> Result<PathBuf, Error> {
    if let Some(folder) = std::env::var_os("KILN_DATA").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let platform = etcetera::choose_base_strategy().map_err(|_| Error::NoFolder)?;
    Ok(platform.cache_dir().join("kiln"))
}

/// The folder of one data set.
pub(crate) fn folder_of(source: Source, dir: &Path) -> PathBuf {
    dir.join(source.to_string())
}

/// The raw or the compressed file, whichever is there. What is no file, or cannot be looked at, is there, too: who reads it says so.
pub(crate) fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let there = |path: &PathBuf| !matches!(path.try_exists(), Ok(false));
    [folder.join(name), folder.join(format!("{name}.gz"))].into_iter().find(there)
}

/// Files of a data set that are not under `dir`, neither raw nor compressed. What is in the others is not looked at.
pub fn missing(source: Source, dir: &Path) -> Vec<PathBuf> {
    let folder = folder_of(source, dir);
    let missing = |file: &SourceFile| find(&folder, file.name).is_none();
    source.files().iter().filter(|file| missing(file)).map(|file| folder.join(file.name)).collect()
}

/// Whether none is [`missing`].
pub fn is_present(source: Source, dir: &Path) -> bool {
    missing(source, dir).is_empty()
}

/// Reads a data set from `dir/NAME/`, raw files or `.gz`.
///
/// # Errors
/// [`Error::Missing`] for a file that is not there, [`Error::Idx`] for one that is wrong, [`Error::Counts`] or
/// [`Error::Shapes`] where files do not belong together.
pub fn load(source: Source, dir: &Path) -> Result<Dataset, Error> {
    let folder = folder_of(source, dir);
    let [train_images, train_labels, test_images, test_labels] = source.files().map(|file| file.name);
    let train = load_split(source, &folder, train_images, train_labels)?;
    let test = load_split(source, &folder, test_images, test_labels)?;
    let shape = |split: &Split| (split.images.height, split.images.width);
    if shape(&train) != shape(&test) {
        return Err(Error::Shapes { folder, train: shape(&train), test: shape(&test) });
    }
    Ok(Dataset { source, classes: source.classes(), train, test })
}

fn load_split(
    source: Source,
    folder: &Path,
    images: &'static str,
    labels: &'static str,
) -> Result<Split, Error> {
    let path = |name| {
        find(folder, name).ok_or_else(|| Error::Missing { folder: folder.into(), name, source_name: source })
    };
    let split = Split {
        images: read_images(&path(images)?)?,
        labels: read_labels(&path(labels)?, source.classes())?,
    };
    let (image_count, label_count) = (split.images.count, split.labels.len());
    if image_count != label_count {
        return Err(Error::Counts { folder: folder.into(), images, labels, image_count, label_count });
    }
    Ok(split)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::IdxErrorKind;

    /// A folder with a tiny data set in the files of MNIST.
    fn tiny(train: u8, labels: u8) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("mnist");
        fs::create_dir(&folder).unwrap();
        let images = |count: u8| {
            let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 1, 0, 0, 0, 2];
            bytes.extend((0..2 * count).map(|i| i * 3));
            bytes
        };
        let classes = |count: u8| [vec![0, 0, 8, 1, 0, 0, 0, count], (0..count).collect()].concat();
        fs::write(folder.join("train-images-idx3-ubyte"), images(train)).unwrap();
        fs::write(folder.join("train-labels-idx1-ubyte"), classes(labels)).unwrap();
        fs::write(folder.join("t10k-images-idx3-ubyte"), images(2)).unwrap();
        fs::write(folder.join("t10k-labels-idx1-ubyte"), classes(2)).unwrap();
        dir
    }

    #[test]
    fn a_data_set_is_loaded() {
        let dir = tiny(3, 3);
        assert!(is_present(Source::Mnist, dir.path()) && !is_present(Source::FashionMnist, dir.path()));
        let found = load(Source::Mnist, dir.path()).unwrap();
        assert_eq!((found.train.len(), found.test.len(), found.train.width()), (3, 2, 2));
    }

    #[test]
    fn data_sets_are_told_apart_by_every_byte() {
        let dir = tiny(3, 3);
        let found = load(Source::Mnist, dir.path()).unwrap();
        let sha256 = found.sha256();
        assert_eq!(load(Source::Mnist, dir.path()).unwrap().sha256(), sha256);
        assert!(sha256.len() == 64 && sha256.bytes().all(|digit| digit.is_ascii_hexdigit()), "{sha256}");
        let changes: [fn(&mut Dataset); 5] = [
            |data| data.train.labels.swap(0, 1),
            |data| data.train.images.pixels[5] ^= 1,
            |data| data.test.labels[1] = 0,
            |data| data.test.images.pixels[0] += 1,
            |data| data.train.images = Images { height: 2, width: 1, ..data.train.images.clone() },
        ];
        for change in changes {
            let mut other = found.clone();
            change(&mut other);
            assert_ne!(other.sha256(), sha256);
        }
        // Source: Python's hashlib, over the same bytes.
        assert_eq!(sha256, "4f6b3000f7ffaca8ba5385ee15ec87037c45930fd47889ebc65189a5ee7aa97b");
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let dir = tiny(3, 3);
        fs::remove_file(dir.path().join("mnist/t10k-labels-idx1-ubyte")).unwrap();
        assert!(!is_present(Source::Mnist, dir.path()));
        assert_eq!(missing(Source::Mnist, dir.path()), [dir.path().join("mnist/t10k-labels-idx1-ubyte")]);
        let error = load(Source::Mnist, dir.path()).unwrap_err();
        assert!(matches!(error, Error::Missing { name: "t10k-labels-idx1-ubyte", .. }), "{error}");
    }

    #[test]
    fn what_is_no_file_is_not_missing() {
        let dir = tiny(3, 3);
        let path = dir.path().join("mnist/t10k-labels-idx1-ubyte");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(is_present(Source::Mnist, dir.path()));
        let error = load(Source::Mnist, dir.path()).unwrap_err();
        assert!(
            matches!(&error, Error::Idx(IdxError { path: found, kind: IdxErrorKind::Io(_) }) if *found == path),
            "{error}"
        );
    }

    #[test]
    fn counts_must_be_equal() {
        let dir = tiny(3, 4);
        let error = load(Source::Mnist, dir.path()).unwrap_err();
        assert!(matches!(error, Error::Counts { image_count: 3, label_count: 4, .. }), "{error}");
    }

    #[test]
    fn shapes_must_be_one() {
        let dir = tiny(3, 3);
        let test = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 5, 5];
        fs::write(dir.path().join("mnist/t10k-images-idx3-ubyte"), test).unwrap();
        let error = load(Source::Mnist, dir.path()).unwrap_err();
        assert!(matches!(error, Error::Shapes { train: (1, 2), test: (1, 1), .. }), "{error}");
    }
}
