//! Data for tests of the command.

use std::fs;

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
