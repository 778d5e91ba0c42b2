//! IDX files: a magic number, the sizes of the dimensions, then bytes. Raw, or compressed by gzip.
//!
//! Source of the format: <http://yann.lecun.com/exdb/mnist/>, "the IDX file format".

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use byteorder::{BigEndian, ReadBytesExt};
use flate2::read::MultiGzDecoder;

/// Grey images, (count, height, width) pixels 0..=255, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// count * height * width bytes.
    pub pixels: Vec<u8>,
    /// How many images there are, at least 1.
    pub count: usize,
    /// Rows an image, at least 1.
    pub height: usize,
    /// Pixels a row, at least 1.
    pub width: usize,
}

/// An IDX file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct IdxError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: IdxErrorKind,
}

/// The ways in which an IDX file can be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdxErrorKind {
    /// It cannot be opened or read, or its compression is broken.
    #[error("could not be read: {0}")]
    Io(#[from] io::Error),
    /// It ends before its header does.
    #[error("expected a header of {expected} bytes, found {found} bytes in all")]
    Header {
        /// Bytes of the header.
        expected: usize,
        /// Bytes of the file.
        found: usize,
    },
    /// Its first two bytes are not zero.
    #[error("expected the IDX magic 0x0000, raw or in gzip, found 0x{found:04x}")]
    Magic {
        /// The first two bytes.
        found: u16,
    },
    /// Its elements are not unsigned bytes.
    #[error("expected elements of type 0x08 (unsigned bytes), found type 0x{found:02x}")]
    Type {
        /// The third byte.
        found: u8,
    },
    /// It has another number of dimensions: labels where images should be, say.
    #[error("expected {expected} dimensions ({what}), found {found}")]
    Dimensions {
        /// `images` or `labels`.
        what: &'static str,
        /// 3 for images, 1 for labels.
        expected: u8,
        /// The fourth byte.
        found: u8,
    },
    /// A dimension is zero, or all together are more than [`BYTES_MAX`].
    #[error("expected dimensions of 1 or more and at most {BYTES_MAX} elements, found {found:?}")]
    Size {
        /// The dimensions as the header has them.
        found: Vec<u32>,
    },
    /// It holds fewer elements than its header says.
    #[error("truncated: expected {expected} bytes after the header, found {found}")]
    Truncated {
        /// The product of the dimensions.
        expected: u64,
        /// What follows the header.
        found: u64,
    },
    /// Something follows the elements that its header announces.
    #[error("expected {expected} bytes after the header, found more")]
    Trailing {
        /// The product of the dimensions.
        expected: u64,
    },
    /// A label names a class that does not exist.
    #[error("label {index}: expected a class below {classes}, found {found}")]
    Label {
        /// Which label, from 0.
        index: usize,
        /// How many classes there are.
        classes: usize,
        /// The label.
        found: u8,
    },
}

/// Elements that a file may hold at most: 4 GiB, some eighty times MNIST.
pub const BYTES_MAX: u64 = 1 << 32;

/// Reads images: an IDX file of unsigned bytes in three dimensions.
///
/// # Errors
/// [`IdxError`], of one kind for each way in which the file can be wrong.
pub fn read_images(path: &Path) -> Result<Images, IdxError> {
    of(path, read(path, "images", 3)).map(|(sizes, pixels)| Images {
        pixels,
        count: sizes[0],
        height: sizes[1],
        width: sizes[2],
    })
}

/// Reads labels: an IDX file of unsigned bytes in one dimension, each below `classes`.
///
/// # Errors
/// [`IdxError`], of one kind for each way in which the file can be wrong.
pub fn read_labels(path: &Path, classes: usize) -> Result<Vec<u8>, IdxError> {
    let (_, labels) = of(path, read(path, "labels", 1))?;
    match labels.iter().position(|&label| usize::from(label) >= classes) {
        Some(index) => of(path, Err(IdxErrorKind::Label { index, classes, found: labels[index] })),
        None => Ok(labels),
    }
}

fn of<T>(path: &Path, read: Result<T, IdxErrorKind>) -> Result<T, IdxError> {
    read.map_err(|kind| IdxError { path: path.into(), kind })
}

fn read(path: &Path, what: &'static str, dimensions: u8) -> Result<(Vec<usize>, Vec<u8>), IdxErrorKind> {
    let mut file = open(path)?;

    let header_bytes = 4 + 4 * usize::from(dimensions);
    let mut header = Vec::with_capacity(header_bytes);
    file.by_ref().take(header_bytes as u64).read_to_end(&mut header)?;
    let short = |_| IdxErrorKind::Header { expected: header_bytes, found: header.len() };
    let mut fields = header.as_slice();
    // What is there is checked before what is missing: a text file should be told its magic, not its length.
    let magic = fields.read_u16::<BigEndian>().map_err(short)?;
    if magic != 0 {
        return Err(IdxErrorKind::Magic { found: magic });
    }
    let element = fields.read_u8().map_err(short)?;
    if element != 0x08 {
        return Err(IdxErrorKind::Type { found: element });
    }
    let found = fields.read_u8().map_err(short)?;
    if found != dimensions {
        return Err(IdxErrorKind::Dimensions { what, expected: dimensions, found });
    }
    let mut sizes = vec![0u32; usize::from(dimensions)];
    fields.read_u32_into::<BigEndian>(&mut sizes).map_err(short)?;
    let elements = sizes.iter().try_fold(1u64, |product, &n| product.checked_mul(u64::from(n)));
    let expected = match elements {
        Some(elements) if (1..=BYTES_MAX).contains(&elements) => elements,
        _ => return Err(IdxErrorKind::Size { found: sizes }),
    };

    // The buffer grows with what arrives, never with what the header promises.
    let mut bytes = Vec::new();
    file.by_ref().take(expected).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < expected {
        return Err(IdxErrorKind::Truncated { expected, found: bytes.len() as u64 });
    }
    if file.read(&mut [0])? != 0 {
        return Err(IdxErrorKind::Trailing { expected });
    }
    Ok((sizes.into_iter().map(|n| n as usize).collect(), bytes))
}

/// The bytes of a file, uncompressed if it begins as gzip does.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("expected a plain file"));
    }
    let mut start = Vec::with_capacity(2);
    File::open(path)?.take(2).read_to_end(&mut start)?;
    let file = BufReader::with_capacity(1 << 20, File::open(path)?);
    Ok(if start == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An image file of 2 images of 2x3 pixels, or what `change` makes of it.
    fn images(change: impl FnOnce(&mut Vec<u8>)) -> Result<Images, IdxError> {
        let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3];
        bytes.extend(0..12);
        change(&mut bytes);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(&bytes).unwrap();
        read_images(file.path())
    }

    fn labels(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(bytes).unwrap();
        read_labels(file.path(), 10)
    }

    #[test]
    fn good_files_are_read_raw_and_compressed() {
        let raw = images(|_| ()).unwrap();
        assert_eq!((raw.count, raw.height, raw.width), (2, 2, 3));
        assert_eq!(raw.pixels, (0..12).collect::<Vec<u8>>());
        let compressed = images(|bytes| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(bytes).unwrap();
            *bytes = gzip.finish().unwrap();
        });
        assert_eq!(compressed.unwrap(), raw);
        assert_eq!(labels(&[0, 0, 8, 1, 0, 0, 0, 3, 9, 0, 5]).unwrap(), [9, 0, 5]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_images(Path::new("no/such/file")).unwrap_err();
        assert!(
            matches!(error.kind, IdxErrorKind::Io(_)) && error.to_string().contains("no/such/file"),
            "{error}"
        );
    }

    #[test]
    fn an_empty_file_and_a_cut_header() {
        for keep in [0, 1, 3, 4, 15] {
            let error = images(|bytes| bytes.truncate(keep)).unwrap_err();
            assert!(
                matches!(error.kind, IdxErrorKind::Header { expected: 16, found, .. } if found == keep),
                "{error}"
            );
        }
    }

    #[test]
    fn a_wrong_magic() {
        let error = images(|bytes| bytes[0] = b'<').unwrap_err();
        assert!(matches!(error.kind, IdxErrorKind::Magic { found: 0x3c00, .. }), "{error}");
    }

    #[test]
    fn a_wrong_element_type() {
        let error = images(|bytes| bytes[2] = 0x0d).unwrap_err();
        assert!(matches!(error.kind, IdxErrorKind::Type { found: 0x0d, .. }), "{error}");
    }

    #[test]
    fn images_and_labels_swapped() {
        let error = labels(&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7]).unwrap_err();
        assert!(matches!(error.kind, IdxErrorKind::Dimensions { expected: 1, found: 3, .. }), "{error}");
        let error = images(|bytes| bytes[3] = 1).unwrap_err();
        assert!(matches!(error.kind, IdxErrorKind::Dimensions { expected: 3, found: 1, .. }), "{error}");
    }

    #[test]
    fn absurd_sizes_are_refused_before_anything_is_allocated() {
        for sizes in [[0u8; 12], [255; 12]] {
            let error = images(|bytes| bytes[4..16].copy_from_slice(&sizes)).unwrap_err();
            assert!(matches!(error.kind, IdxErrorKind::Size { .. }), "{error}");
        }
        // 4 GiB announced, 12 bytes there: found truncated after reading 12 bytes.
        let large = [0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0];
        let error = images(|bytes| bytes[4..16].copy_from_slice(&large)).unwrap_err();
        assert!(
            matches!(error.kind, IdxErrorKind::Truncated { expected: BYTES_MAX, found: 12, .. }),
            "{error}"
        );
    }

    #[test]
    fn lengths_are_checked_to_the_byte() {
        let error = images(|bytes| bytes.truncate(27)).unwrap_err();
        assert!(matches!(error.kind, IdxErrorKind::Truncated { expected: 12, found: 11, .. }), "{error}");
        let error = images(|bytes| bytes.push(0)).unwrap_err();
        assert!(matches!(error.kind, IdxErrorKind::Trailing { expected: 12, .. }), "{error}");
    }

    #[test]
    fn a_label_beyond_the_classes() {
        let error = labels(&[0, 0, 8, 1, 0, 0, 0, 3, 9, 10, 5]).unwrap_err();
        assert!(
            matches!(error.kind, IdxErrorKind::Label { index: 1, found: 10, classes: 10, .. }),
            "{error}"
        );
    }

    #[test]
    fn broken_compression_is_an_error_of_the_file() {
        let error = images(|bytes| *bytes = vec![0x1f, 0x8b, 8, 0, 1, 2, 3]).unwrap_err();
        assert!(matches!(error.kind, IdxErrorKind::Io(_)), "{error}");
    }
}
