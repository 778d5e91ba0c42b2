//! `model.safetensors`: parameters under PyTorch's names, so that `load_state_dict` takes them.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use kiln_engine::{Mlp, Tensor};

use crate::checkpoint::Checkpoint;
use crate::tensor_file::{self, Contents};

/// The bytes of a file with the parameters and some metadata, for a reader.
pub(crate) fn bytes(model: &Mlp, metadata: HashMap<String, String>) -> anyhow::Result<Vec<u8>> {
    tensor_file::bytes(model.tensors().iter().map(|tensor| (tensor.name.clone(), tensor)), &[], metadata)
}

/// Reads a model: `fc1.weight` (out, in), `fc1.bias` (out), `fc2.weight`, .. of float32, and nothing else; and the file's metadata. Or the
/// model of a checkpoint, with its loss and data set for metadata.
pub(crate) fn load(path: &Path) -> anyhow::Result<(Mlp, HashMap<String, String>)> {
    read(path).with_context(|| format!("{}: not a model that kiln can read", path.display()))
}

fn read(path: &Path) -> anyhow::Result<(Mlp, HashMap<String, String>)> {
    let contents = tensor_file::read(path)?;
    if Checkpoint::is_one(&contents) {
        let Checkpoint { settings, state, .. } = Checkpoint::of(contents)?;
        let metadata = [("loss", settings.loss.to_string()), ("dataset", settings.dataset.to_string())];
        return Ok((state.model, metadata.map(|(key, value)| (key.to_owned(), value)).into()));
    }
    let Contents { mut tensors, texts, metadata } = contents;
    if let Some(name) = texts.keys().next() {
        bail!("tensor {name}: expected F32, found U8");
    }
    let layers = layers(&tensors)?;
    let model = Mlp::take_from(&layers, &mut tensors)?;
    if let Some(other) = tensors.keys().min() {
        bail!("tensor {other}: expected only fc1..fc{} with weight and bias", model.depth());
    }
    Ok((model, metadata))
}

/// The widths, read off the weights' shapes.
fn layers(tensors: &HashMap<String, Tensor>) -> anyhow::Result<Vec<usize>> {
    let mut layers: Vec<usize> = Vec::new();
    for i in 1.. {
        let name = format!("fc{i}.weight");
        let Some(weight) = tensors.get(&name) else { break };
        let &[outputs, inputs] = weight.shape.as_slice() else {
            bail!("tensor {name}: expected a shape (out, in), found {:?}", weight.shape);
        };
        match layers.last() {
            None => layers.push(inputs),
            Some(&below) => {
                ensure!(below == inputs, "tensor {name}: expected {below} inputs, found {inputs}")
            }
        }
        layers.push(outputs);
    }
    ensure!(!layers.is_empty(), "expected a tensor fc1.weight, found {} tensors without it", tensors.len());
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView, serialize};

    use super::*;

    fn error_of(folder: &Path, bytes: &[u8]) -> String {
        let path = folder.join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let text = format!("{:#}", load(&path).unwrap_err());
        assert!(text.contains("model.safetensors: not a model"), "{text}");
        text
    }

    #[test]
    fn a_model_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let model = Mlp::new(&[7, 5, 3], 9).unwrap();
        // Other programs say of what format their tensors are.
        let metadata = HashMap::from([("seed", "9"), ("format", "pt")]).into_iter();
        let metadata: HashMap<_, _> =
            metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        std::fs::write(&path, bytes(&model, metadata.clone()).unwrap()).unwrap();
        assert_eq!(load(&path).unwrap(), (model, metadata));
    }

    #[test]
    fn files_that_are_no_models_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = |tensors: &[(&str, &[usize])]| {
            let zeros = [0u8; 256];
            let view = |shape: &[usize]| {
                let bytes = &zeros[..4 * shape.iter().product::<usize>()];
                TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()
            };
            serialize(tensors.iter().map(|(name, shape)| (*name, view(shape))), None).unwrap()
        };
        let good = file(&[("fc1.weight", &[2, 3]), ("fc1.bias", &[2])]);
        for cut in [0, 4, 20, good.len() - 1] {
            error_of(folder.path(), &good[..cut]);
        }
        error_of(folder.path(), &[&u64::MAX.to_le_bytes()[..], b"{}"].concat());
        // A file that tells no size, and has bytes.
        let text = format!("{:#}", load(Path::new("/proc/self/status")).unwrap_err());
        assert!(
            text.contains("expected a header of at most 0 bytes") || text.contains("No such file"),
            "{text}"
        );
        // A terabyte that takes no disk: its header is read, and no more.
        let path = folder.path().join("sparse");
        for (start, why) in
            [(&good[..], "bytes, as the header has it, found 1099511627776"), (&[], "the header: ")]
        {
            std::fs::write(&path, start).unwrap();
            std::fs::File::options().append(true).open(&path).unwrap().set_len(1 << 40).unwrap();
            let text = format!("{:#}", load(&path).unwrap_err());
            assert!(text.contains(why), "{text}");
        }
        let text = error_of(folder.path(), &file(&[("w", &[2])]));
        assert!(text.contains("expected a tensor fc1.weight"), "{text}");
        let text = error_of(folder.path(), &file(&[("fc1.weight", &[2, 3])]));
        assert!(text.contains("fc1.bias is missing"), "{text}");
        let text = error_of(folder.path(), &file(&[("fc1.weight", &[6]), ("fc1.bias", &[2])]));
        assert!(text.contains("expected a shape (out, in), found [6]"), "{text}");
        let chain: &[(&str, &[usize])] = &[("fc1.weight", &[2, 3]), ("fc2.weight", &[2, 4])];
        let text = error_of(folder.path(), &file(chain));
        assert!(text.contains("fc2.weight: expected 2 inputs, found 4"), "{text}");
        let extra: &[(&str, &[usize])] = &[("fc1.weight", &[2, 3]), ("fc1.bias", &[2]), ("norm", &[1])];
        let text = error_of(folder.path(), &file(extra));
        assert!(text.contains("norm: expected only fc1..fc1"), "{text}");
    }
}
