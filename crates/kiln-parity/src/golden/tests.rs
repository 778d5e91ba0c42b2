//! The recordings of this project, and files that lie.

use std::fs;

use super::*;
use crate::{GoldenAdamW, GoldenSgd};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

#[test]
fn the_recordings_are_read() {
    let golden = Golden::read(&folder().join("odd-37-19-5.safetensors")).unwrap();
    assert_eq!((golden.layers.as_slice(), golden.steps, golden.batch), (&[37, 19, 5][..], 60, 17));
    assert_eq!((golden.loss, golden.samples), (GoldenLoss::MeanSquaredError, 300));
    let sgd = GoldenSgd { lr: 0.02, momentum: 0.5, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    assert_eq!((golden.optimizer, golden.schedule), (GoldenOptimizer::Sgd(sgd), None));
    assert_eq!(golden.lr, [0.02; 60]);
    assert_eq!((golden.order.len(), golden.loss_f64.len()), (60 * 17, 60));
    assert!(matches!(&golden.data, GoldenData::Random { x, y } if x.len() == 300 * 37 && y.len() == 300 * 5));
    let deep = Golden::read(&folder().join("deep-784-64-48-32-10.safetensors")).unwrap();
    assert_eq!((deep.init.len(), deep.init[4].name.as_str()), (8, "fc3.weight"));
    assert!(matches!(deep.optimizer, GoldenOptimizer::Sgd(GoldenSgd { nesterov: true, .. })));
}

#[test]
fn recordings_of_adamw_and_of_schedules_are_read() {
    let golden = Golden::read(&folder().join("adamw-cosine-19-13-11-2.safetensors")).unwrap();
    let adamw = GoldenAdamW { lr: 0.005, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 };
    assert_eq!(golden.optimizer, GoldenOptimizer::AdamW(adamw));
    let cosine = GoldenSchedule::CosineAnnealingLR { t_max: 90, eta_min: 1e-4, warmup_steps: 10 };
    assert_eq!(golden.schedule, Some(cosine));
    assert_eq!((golden.lr.len(), golden.lr[10]), (100, 0.005));
    let golden = Golden::read(&folder().join("one-cycle-17-29-3.safetensors")).unwrap();
    assert!(matches!(
        golden.schedule,
        Some(GoldenSchedule::OneCycleLR { total_steps: 100, pct_start: 0.3, .. })
    ));
    let golden = Golden::read(&folder().join("step-21-15-4.safetensors")).unwrap();
    assert!(matches!(golden.schedule, Some(GoldenSchedule::StepLR { step_size: 17, warmup_steps: 5, .. })));
}

/// A small recording: name to type, shape and bytes, and its metadata.
struct Parts {
    metadata: HashMap<String, String>,
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Parts {
    fn new() -> Self {
        let pairs = [
            ("name", "small"),
            ("layers", "[2, 1]"),
            ("steps", "3"),
            ("batch", "2"),
            ("samples", "4"),
            ("loss", "mse"),
            ("optimizer", r#"{"lr": 0.1}"#),
            ("data", "random"),
        ];
        let mut tensors = vec![
            ("x".to_owned(), Dtype::F32, vec![4, 2], vec![0; 32]),
            ("y".to_owned(), Dtype::F32, vec![4, 1], vec![0; 16]),
            ("order".to_owned(), Dtype::I32, vec![3, 2], vec![0; 24]),
            ("loss.f64".to_owned(), Dtype::F64, vec![3], vec![0; 24]),
        ];
        for (prefix, dtype, size) in
            [("init", Dtype::F32, 4), ("grad0.f64", Dtype::F64, 8), ("final.f64", Dtype::F64, 8)]
        {
            tensors.push((format!("{prefix}.fc1.weight"), dtype, vec![1, 2], vec![0; 2 * size]));
            tensors.push((format!("{prefix}.fc1.bias"), dtype, vec![1], vec![0; size]));
        }
        Self { metadata: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), tensors }
    }

    fn tensor(&mut self, name: &str) -> &mut (String, Dtype, Vec<usize>, Vec<u8>) {
        self.tensors.iter_mut().find(|(n, ..)| n == name).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, Some(self.metadata.clone())).unwrap()
    }
}

fn read(bytes: &[u8]) -> Result<Golden, GoldenError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    Golden::read(file.path())
}

fn changed(change: impl FnOnce(&mut Parts)) -> GoldenError {
    let mut parts = Parts::new();
    change(&mut parts);
    read(&parts.bytes()).unwrap_err()
}

#[test]
fn the_small_recording_is_good() {
    let golden = read(&Parts::new().bytes()).unwrap();
    assert_eq!((golden.steps, golden.batch, golden.samples), (3, 2, 4));
}

#[test]
fn missing_and_truncated_files() {
    assert!(matches!(
        Golden::read(Path::new("no/such/file")),
        Err(GoldenError { kind: GoldenErrorKind::Io(_), .. })
    ));
    let bytes = Parts::new().bytes();
    for keep in [0, 7, 8, 100, bytes.len() - 1] {
        let error = read(&bytes[..keep]).unwrap_err();
        assert!(matches!(error.kind, GoldenErrorKind::Format { .. }), "{keep}: {error}");
    }
    let mut lying = bytes;
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read(&lying), Err(GoldenError { kind: GoldenErrorKind::Format { .. }, .. })));
}

#[test]
fn metadata_that_is_missing_or_wrong() {
    for key in ["name", "layers", "steps", "batch", "samples", "loss", "optimizer", "data"] {
        let error = changed(|parts| drop(parts.metadata.remove(key)));
        assert!(matches!(error.kind, GoldenErrorKind::MetadataMissing { key: k, .. } if k == key), "{error}");
    }
    let wrong = [
        ("layers", "[2]"),
        ("layers", "[2, 0]"),
        ("layers", "2, 1"),
        ("steps", "0"),
        ("batch", "-1"),
        ("samples", "many"),
        ("loss", "hinge"),
        ("data", "cifar"),
        ("optimizer", "{}"),
        ("optimizer", r#"{"lr": 0.1, "maximize": true}"#),
        ("optimizer", r#"{"lr": 0.1, "type": "Adam"}"#),
        ("optimizer", r#"{"lr": 0.1, "type": 1}"#),
        ("optimizer", r#"{"lr": 0.1, "type": "AdamW", "amsgrad": true}"#),
        ("optimizer", r#"{"lr": 0.1, "type": "AdamW", "betas": [0.9]}"#),
        ("schedule", "{}"),
        ("schedule", r#"{"type": "ExponentialLR", "gamma": 0.9}"#),
        ("schedule", r#"{"type": "StepLR", "gamma": 0.9}"#),
        ("schedule", r#"{"type": "StepLR", "step_size": -1, "gamma": 0.9}"#),
        ("schedule", r#"{"type": "ConstantLR", "factor": 0.9}"#),
        ("schedule", r#"{"type": "OneCycleLR", "max_lr": 1, "total_steps": 3, "three_phase": true}"#),
    ];
    for (key, value) in wrong {
        let error = changed(|parts| drop(parts.metadata.insert(key.to_owned(), value.to_owned())));
        assert!(matches!(error.kind, GoldenErrorKind::Metadata { key: k, .. } if k == key), "{error}");
    }
}

#[test]
fn tensors_that_are_missing_or_wrong() {
    let names: Vec<String> = Parts::new().tensors.iter().map(|t| t.0.clone()).collect();
    for name in names {
        let error = changed(|parts| parts.tensors.retain(|t| t.0 != name));
        assert!(
            matches!(&error.kind, GoldenErrorKind::TensorMissing { name: n, .. } if *n == name),
            "{error}"
        );
        let error = changed(|parts| {
            let tensor = parts.tensor(&name);
            tensor.2.insert(0, 1);
        });
        assert!(matches!(&error.kind, GoldenErrorKind::Tensor { name: n, .. } if *n == name), "{error}");
    }
    let error = changed(|parts| parts.tensor("order").1 = Dtype::U32);
    assert!(matches!(&error.kind, GoldenErrorKind::Tensor { .. }), "{error}");
    // With a schedule, the learning rates must be there.
    let schedule = r#"{"type": "ConstantLR"}"#.to_owned();
    let error = changed(|parts| drop(parts.metadata.insert("schedule".to_owned(), schedule)));
    assert!(matches!(&error.kind, GoldenErrorKind::TensorMissing { name, .. } if name == "lr"), "{error}");
    // Absurd sizes in the metadata only fail to match the tensors; nothing is allocated for them.
    for key in ["samples", "steps"] {
        let error = changed(|parts| drop(parts.metadata.insert(key.to_owned(), u64::MAX.to_string())));
        assert!(matches!(&error.kind, GoldenErrorKind::Tensor { .. }), "{error}");
    }
}

#[test]
fn values_that_are_out_of_range() {
    let nan = f32::NAN.to_le_bytes();
    let error = changed(|parts| parts.tensor("init.fc1.weight").3[4..].copy_from_slice(&nan));
    assert!(matches!(error.kind, GoldenErrorKind::NotFinite { index: 1, .. }), "{error}");
    let infinite = f64::INFINITY.to_le_bytes();
    let error = changed(|parts| parts.tensor("loss.f64").3[16..].copy_from_slice(&infinite));
    assert!(matches!(error.kind, GoldenErrorKind::NotFinite { index: 2, .. }), "{error}");
    for sample in [4i32, -1] {
        let error = changed(|parts| parts.tensor("order").3[8..12].copy_from_slice(&sample.to_le_bytes()));
        assert!(matches!(error.kind, GoldenErrorKind::Order { position: 2, samples: 4, .. }), "{error}");
    }
}

#[test]
fn what_has_no_end_is_read_up_to_the_limit() {
    assert_eq!(read_at_most(9, io::repeat(7)).unwrap(), None);
    assert_eq!(read_at_most(9, io::repeat(7).take(9)).unwrap(), Some(vec![7; 9]));
    assert_eq!(read_at_most(9, io::repeat(7).take(10)).unwrap(), None);
}
