//! Named tensors of float32 in a safetensors file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::ensure;
use kiln_engine::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, View, serialize};

/// Largest file that is read: more is not a multilayer perceptron that this machine could train.
const BYTES_MAX: u64 = 1 << 36;

/// The bytes of a file with tensors under these names and some metadata, for a reader.
pub(crate) fn bytes<'t>(
    tensors: impl Iterator<Item = (String, &'t Tensor)>,
    metadata: HashMap<String, String>,
) -> anyhow::Result<Vec<u8>> {
    Ok(serialize(tensors.map(|(name, tensor)| (name, LittleEndian(tensor))), Some(metadata))?)
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
