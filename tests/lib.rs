//! What the tests of this folder share.

pub mod outputs;
pub mod shim;
pub mod sim;

use std::path::{Path, PathBuf};

use kiln_data::{Dataset, Source, default_dir, fetch, is_present, load};

/// The real MNIST, from the folder where `kiln train` keeps it, fetched where it is not there yet.
///
/// # Panics
/// Where it can neither be found nor fetched: the tests need it.
pub fn mnist() -> Dataset {
    let folder = default_dir().expect("a folder for data");
    if !is_present(Source::Mnist, &folder) {
        fetch(Source::Mnist, &folder, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"));
    }
    load(Source::Mnist, &folder).unwrap_or_else(|error| panic!("{error}"))
}

/// One number for many, by which a test compares the bits of two processes.
pub fn hash(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, |hash, value| (hash ^ value).wrapping_mul(0x100_0000_01b3).rotate_left(17))
}

/// The folder of golden trajectories: this repository's, or the one that `KILN_GOLDEN` names, for tests that were built on
/// another machine.
pub fn golden() -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    std::env::var_os("KILN_GOLDEN").map_or_else(here, PathBuf::from)
}
