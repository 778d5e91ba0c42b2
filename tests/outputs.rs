//! Outputs of kernels as files, so that those of the simulator and those of a GPU can be compared: `scripts/compare-outputs`.
//!
//! Where `KILN_SAVE_OUTPUTS` names a folder, every output that a test reads is written to FOLDER/TEST/NUMBER.TYPE, little
//! endian, in the order in which the test reads them. Of a large output every n-th value is kept. Of a test that runs several times, with other settings each time, the first
//! run is kept.

use std::cell::RefCell;
use std::path::PathBuf;

/// Names the folder.
const FOLDER: &str = "KILN_SAVE_OUTPUTS";
/// Values of an output that are kept, about.
const KEPT: usize = 1024;

thread_local! {
    static TEST: RefCell<Option<Saving>> = const { RefCell::new(None) };
}

/// The folder of the test that runs on this thread, and how many outputs it holds.
struct Saving {
    folder: PathBuf,
    outputs: usize,
}

/// A number of an output.
pub trait Output: Copy {
    /// How files of such numbers end.
    const TYPE: &'static str;
    /// Its bytes, the least one first.
    fn bytes(self) -> impl Iterator<Item = u8>;
}

macro_rules! output {
    ($($type:ident),+) => {
        $(impl Output for $type {
            const TYPE: &'static str = stringify!($type);
            fn bytes(self) -> impl Iterator<Item = u8> {
                self.to_le_bytes().into_iter()
            }
        })+
    };
}
output!(u16, u32, f32, f64);

/// A test begins on this thread.
///
/// # Panics
/// Where its folder cannot be made.
pub fn begin(test: &str) {
    let saving = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).and_then(|folder| {
        let folder = PathBuf::from(folder);
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let folder = folder.join(test.replace("::", "."));
        // Where it is there already, another run of this test has filled it.
        std::fs::create_dir(&folder).ok().map(|()| Saving { folder, outputs: 0 })
    });
    TEST.set(saving);
}

/// An output of the test that has begun on this thread.
///
/// # Panics
/// Where it cannot be written.
pub fn save<T: Output>(values: &[T]) {
    TEST.with_borrow_mut(|saving| {
        let Some(Saving { folder, outputs }) = saving else { return };
        let file = folder.join(format!("{outputs:04}.{}", T::TYPE));
        // Odd, so that no column of a matrix of even width is left out.
        let apart = values.len().div_ceil(KEPT) | 1;
        let bytes: Vec<u8> = values.iter().step_by(apart).flat_map(|value| value.bytes()).collect();
        std::fs::write(&file, bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        *outputs += 1;
    });
}
