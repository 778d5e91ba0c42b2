//! Data sets: reads IDX files, fetches them with their checksums, and puts samples into a seeded order.
//!
//! Nothing that a file says about itself is believed before it is checked, and nothing is allocated on its word.
//!
//! ```no_run
//! use kiln_data::{Shuffle, Source, default_dir, fetch, is_present, load};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = default_dir()?;
//! if !is_present(Source::Mnist, &folder) {
//!     fetch(Source::Mnist, &folder, &mut |_| ())?;
//! }
//! let mnist = load(Source::Mnist, &folder)?;
//! let order = Shuffle::new(mnist.train.len(), 0).epoch(0); // a permutation of 0..60000
//! # Ok(())
//! # }
//! ```

mod dataset;
mod fetch;
mod idx;
mod order;
mod source;
mod whole_file;

pub use dataset::{Dataset, Error, Split, default_dir, is_present, load, missing};
pub use fetch::{Attempt, FetchError, Fetcher, Progress, fetch, others};
pub use idx::{BYTES_MAX, IdxError, IdxErrorKind, Images, read_images, read_labels};
pub use order::Shuffle;
pub use source::{Source, SourceFile};
pub use whole_file::{SyncedFile, WholeFile};
