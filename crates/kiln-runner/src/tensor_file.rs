//! Named tensors of float32, and texts, in a safetensors file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use kiln_engine::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo, View, serialize};
use serde::{Deserialize, Serialize};

/// Largest file that is read: more is not a multilayer perceptron that this machine could train.
const BYTES_MAX: u64 = 1 << 36;

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) tensors: Vec<Tensor>,
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

/// Reads all tensors, which must be of float32 or texts, and the metadata.
pub(crate) fn read(path: &Path) -> anyhow::Result<Contents> {
    // A pipe would be waited for.
    ensure!(fs::metadata(path)?.is_file(), "expected a plain file");
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    ensure!(size <= BYTES_MAX, "expected at most {BYTES_MAX} bytes, found {size}");
    let mut bytes = Vec::new();
    file.by_ref().take(size).read_to_end(&mut bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut contents = Contents { metadata, ..Contents::default() };
    for (name, view) in SafeTensors::deserialize(&bytes)?.tensors() {
        match view.dtype() {
            Dtype::F32 => {
                let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                let shape = view.shape().to_vec();
                contents.tensors.push(Tensor { name, shape, data: data.collect() });
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
