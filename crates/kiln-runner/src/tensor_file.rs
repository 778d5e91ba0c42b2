//! Named tensors of float32, and texts, in a safetensors file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use kiln_engine::Tensor;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, View, serialize};
use serde::{Deserialize, Serialize};

/// Largest header that is read, as the format has it.
const HEADER_MAX: u64 = 100_000_000;

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Contents {
    /// By their names.
    pub(crate) tensors: HashMap<String, Tensor>,
    /// Tensors of bytes that are UTF-8, by their names: text that may be longer than a header.
    pub(crate) texts: HashMap<String, String>,
    pub(crate) metadata: HashMap<String, String>,
}

/// The bytes of a file with tensors and texts under these names and some metadata, for a reader. The same ones make the same bytes.
pub(crate) fn bytes<'t>(
    tensors: impl Iterator<Item = (String, &'t Tensor)>,
    texts: &[(&str, &str)],
    metadata: HashMap<String, String>,
) -> anyhow::Result<Vec<u8>> {
    let tensors = tensors.map(|(name, tensor)| (name, Data::Floats(tensor)));
    let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), Data::Text(text, [text.len()])));
    let mut bytes = serialize(tensors.chain(texts), Some(metadata))?;
    sort_header(&mut bytes)?;
    Ok(bytes)
}

/// The start of a file: its length in 8 bytes, then so much JSON.
#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

/// Puts what the header says in the order of names: `serialize` has metadata in that of a hash map, another one each time.
fn sort_header(bytes: &mut [u8]) -> anyhow::Result<()> {
    let (len, rest) = bytes.split_first_chunk_mut().context("expected 8 bytes of length")?;
    let len = u64::from_le_bytes(*len) as usize;
    let header: Header = serde_json::from_slice(&rest[..len])?;
    let mut sorted = serde_json::to_vec(&header)?;
    sorted.resize(sorted.len().max(len), b' ');
    ensure!(sorted.len() == len, "expected a header of {len} bytes, found {}", sorted.len());
    rest[..len].copy_from_slice(&sorted);
    Ok(())
}

/// A tensor whose bytes are made when they are written, or a text.
enum Data<'t> {
    Floats(&'t Tensor),
    /// And how many bytes it has.
    Text(&'t str, [usize; 1]),
}

impl View for Data<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Data::Floats(_) => Dtype::F32,
            Data::Text(..) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Data::Floats(tensor) => &tensor.shape,
            Data::Text(_, shape) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Data::Floats(tensor) => tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::Text(text, _) => text.as_bytes().into(),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Data::Floats(tensor) => tensor.data.len() * size_of::<f32>(),
            Data::Text(text, _) => text.len(),
        }
    }
}

/// Opens a file that is no pipe, which would be waited for.
fn open(path: &Path) -> anyhow::Result<File> {
    ensure!(fs::metadata(path)?.is_file(), "expected a plain file");
    Ok(File::open(path)?)
}

/// A file's header, and all of its bytes. What the header says of their number is compared before they are read.
fn whole(mut file: File) -> anyhow::Result<(Metadata, Vec<u8>)> {
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(8).read_to_end(&mut bytes)?;
    let Ok(length) = bytes.as_slice().try_into().map(u64::from_le_bytes) else {
        bail!("expected 8 bytes that tell the header's length, found {size}");
    };
    let max = HEADER_MAX.min(size.saturating_sub(8)); // a file that tells no size may have bytes
    ensure!(length <= max, "expected a header of at most {max} bytes, found {length}");
    file.by_ref().take(length).read_to_end(&mut bytes)?;
    let header: Metadata = serde_json::from_slice(&bytes[8..]).context("the header")?;
    let expected = (8 + length).saturating_add(header.data_len() as u64);
    ensure!(size == expected, "expected {expected} bytes, as the header has it, found {size}");
    file.take(expected - 8 - length).read_to_end(&mut bytes)?;
    Ok((header, bytes))
}

/// Reads all tensors, which must be of float32 or texts, and the metadata.
pub(crate) fn read(path: &Path) -> anyhow::Result<Contents> {
    let (header, bytes) = whole(open(path)?)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut contents = Contents { metadata, ..Contents::default() };
    for (name, view) in SafeTensors::deserialize(&bytes)?.tensors() {
        match view.dtype() {
            Dtype::F32 => {
                let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                let shape = view.shape().to_vec();
                let tensor = Tensor { name: name.clone(), shape, data: data.collect() };
                contents.tensors.insert(name, tensor);
            }
            Dtype::U8 => {
                let text = std::str::from_utf8(view.data()).with_context(|| format!("tensor {name}"))?;
                contents.texts.insert(name, text.to_owned());
            }
            found => bail!("tensor {name}: expected F32, found {found}"),
        }
    }
    Ok(contents)
}
