//! What the tests of the command share: small data, and what is written.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// A data set in MNIST's files: 40 training and 10 test images of 4x4 pixels, whose label is where they are bright.
pub(crate) fn tiny_data() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("mnist");
    fs::create_dir(&folder).unwrap();
    for (name, count) in [("train", 40u8), ("t10k", 10)] {
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 4, 0, 0, 0, 4];
        let mut labels = vec![0, 0, 8, 1, 0, 0, 0, count];
        for i in 0..count {
            let label = i % 10;
            images.extend((0..16).map(|pixel| if pixel == label { 255 } else { i }));
            labels.push(label);
        }
        fs::write(folder.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
    dir
}

/// The floats of a file, without its metadata and the text of a checkpoint, which come before and after them.
pub(crate) fn floats(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let end = header["metrics"]["data_offsets"][0].as_u64().map_or(bytes.len(), |text| data + text as usize);
    bytes[data..end].to_vec()
}
