//! Named tensors of float32 in a safetensors file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use kiln_engine::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo, View, serialize};
use serde::{Deserialize, Serialize};

/// Largest file that is read: more is not a multilayer perceptron that this machine could train.
const BYTES_MAX: u64 = 1 << 36;

/// The bytes of a file with tensors under these names and some metadata, for a reader. The same ones make the same bytes.
pub(crate) fn bytes<'t>(
    tensors: impl Iterator<Item = (String, &'t Tensor)>,
    metadata: HashMap<String, String>,
) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serialize(tensors.map(|(name, tensor)| (name, LittleEndian(tensor))), Some(metadata))?;
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

/// A tensor whose bytes are made when they are written.
struct LittleEndian<'t>(&'t Tensor);

impl View for LittleEndian<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.data.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        self.0.data.len() * size_of::<f32>()
    }
}

/// Reads all tensors, which must be of float32, and the metadata.
pub(crate) fn read(path: &Path) -> anyhow::Result<(Vec<Tensor>, HashMap<String, String>)> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    ensure!(size <= BYTES_MAX, "expected at most {BYTES_MAX} bytes, found {size}");
    // Of what has no size, such as a device, nothing is read.
    let mut bytes = Vec::new();
    file.by_ref().take(size).read_to_end(&mut bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)?;
    let mut tensors = Vec::new();
    for (name, view) in SafeTensors::deserialize(&bytes)?.tensors() {
        ensure!(view.dtype() == Dtype::F32, "tensor {name}: expected F32, found {}", view.dtype());
        let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        tensors.push(Tensor { name, shape: view.shape().to_vec(), data: data.collect() });
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}
