//! `checkpoint.safetensors`: all that a run goes on from. Parameters under PyTorch's names, what the optimizer keeps of each under
//! `momentum_buffer.fc1.weight`, `exp_avg.fc1.weight`, ..; the run's settings are metadata, and its metrics so far a text.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use kiln_engine::{Mlp, Tensor, TrainingState};
use serde::Deserialize;

use crate::settings::Settings;
use crate::tensor_file::{self, Contents};

/// What the metadata say that the file is, and how those of all versions begin.
const FORMAT: &str = "kiln checkpoint 3";
const FAMILY: &str = "kiln checkpoint ";

/// The text that is `metrics.jsonl`: in the header it could not be longer than 100 MB.
const METRICS: &str = "metrics";

/// A run as it is after an epoch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) settings: Settings,
    /// What [`kiln_data::Dataset::sha256`] says of its data.
    pub(crate) data_sha256: String,
    /// Epochs that are done, at least one.
    pub(crate) epoch: usize,
    /// The lines of `metrics.jsonl`, one an epoch.
    pub(crate) metrics: String,
    pub(crate) state: TrainingState,
}

/// The bytes of a checkpoint.
pub(crate) fn bytes(
    settings: &Settings,
    data_sha256: &str,
    epoch: usize,
    metrics: &str,
    state: &TrainingState,
) -> anyhow::Result<Vec<u8>> {
    let metadata = [
        ("format", FORMAT.to_owned()),
        ("settings", serde_json::to_string(settings)?),
        ("data_sha256", data_sha256.to_owned()),
        ("epoch", epoch.to_string()),
        ("steps", state.steps.to_string()),
    ];
    let parameters = state.model.tensors().iter().map(|tensor| (tensor.name.clone(), tensor));
    let moments = settings.optimizer.moments().iter().zip(&state.moments).flat_map(|(moment, tensors)| {
        tensors.iter().map(move |tensor| (format!("{moment}.{}", tensor.name), tensor))
    });
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    tensor_file::bytes(parameters.chain(moments), &[(METRICS, metrics)], metadata)
}

impl Checkpoint {
    /// Reads what [`bytes`] has made.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        Self::read(path)
            .with_context(|| format!("{}: not a checkpoint that kiln can go on from", path.display()))
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        Self::of(tensor_file::read(path)?)
    }

    /// Whether a file claims to be a checkpoint of kiln's, of whatever version. Other formats are told by the same key.
    pub(crate) fn is_one(file: &Contents) -> bool {
        file.metadata.get("format").is_some_and(|format| format.starts_with(FAMILY))
    }

    /// The checkpoint of a file.
    pub(crate) fn of(Contents { mut tensors, mut texts, metadata }: Contents) -> anyhow::Result<Self> {
        let field = |name: &str| {
            metadata.get(name).with_context(|| format!("expected metadata {name:?}, found none"))
        };
        let format = field("format")?;
        ensure!(format == FORMAT, "expected the format {FORMAT:?}, found {format:?}");
        let number = |name: &str| -> anyhow::Result<u64> {
            let text = field(name)?;
            text.parse().with_context(|| format!("metadata {name:?}: expected a number, found {text:?}"))
        };
        let settings: Settings = serde_json::from_str(field("settings")?).context("metadata \"settings\"")?;
        let data_sha256 = field("data_sha256")?.clone();
        let (epoch, steps) = (number("epoch")? as usize, number("steps")?);
        let metrics =
            texts.remove(METRICS).with_context(|| format!("expected a tensor {METRICS}, found none"))?;
        let all = settings.epochs.get();
        ensure!((1..=all).contains(&epoch), "expected an epoch from 1 to {all}, found {epoch}");
        let epoch_steps = settings.epoch_steps();
        ensure!(
            epoch_steps.checked_mul(epoch as u64) == Some(steps),
            "expected {epoch_steps} steps for each of {epoch} epochs, found {steps} in all"
        );
        check_metrics(&metrics, epoch)?;

        let layers: Vec<usize> = settings.layers.iter().map(|width| width.get()).collect();
        let model = Mlp::take_from(&layers, &mut tensors)?;
        let mut moment = |moment: &str| {
            let of = |parameter: &Tensor| {
                let name = format!("{moment}.{}", parameter.name);
                let found =
                    tensors.remove(&name).with_context(|| format!("expected a tensor {name}, found none"))?;
                Ok(Tensor { name: parameter.name.clone(), ..found })
            };
            model.tensors().iter().map(of).collect::<anyhow::Result<Vec<_>>>()
        };
        let moments =
            settings.optimizer.moments().iter().map(|name| moment(name)).collect::<anyhow::Result<_>>()?;
        if let Some(other) = tensors.keys().chain(texts.keys()).min() {
            bail!("expected no other tensors than those of the run, found {other}");
        }
        Ok(Self { settings, data_sha256, epoch, metrics, state: TrainingState { model, moments, steps } })
    }
}

/// Checks that there is a line for each of so many epochs.
fn check_metrics(metrics: &str, epochs: usize) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Line {
        epoch: usize,
    }
    ensure!(metrics.ends_with('\n'), "metrics: expected whole lines");
    let lines = metrics.lines().count();
    ensure!(lines == epochs, "metrics: expected {epochs} lines, found {lines}");
    for (at, line) in metrics.lines().enumerate() {
        let line: Line = serde_json::from_str(line).with_context(|| format!("metrics, line {}", at + 1))?;
        ensure!(line.epoch == at + 1, "metrics, line {}: expected that epoch, found {}", at + 1, line.epoch);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::num::NonZeroUsize;

    use kiln_data::Source;
    use kiln_engine::{AdamW, Curve, Loss, OneCycle, Optimizer, Precision, Schedule, Sgd};

    use super::*;

    fn checkpoint(optimizer: Optimizer) -> Checkpoint {
        let count = |n| NonZeroUsize::new(n).unwrap();
        let model = Mlp::new(&[5, 3, 2], 1).unwrap();
        let moment = |seed| Mlp::new(&[5, 3, 2], seed).unwrap().tensors().to_vec();
        let settings = Settings {
            dataset: Source::FashionMnist,
            layers: vec![count(5), count(3), count(2)],
            loss: Loss::MeanSquaredError,
            optimizer,
            schedule: Schedule { warmup_steps: 3, curve: Curve::OneCycle(OneCycle::new(0.1, 100)) },
            batch: count(8),
            epochs: count(9),
            seed: u64::MAX,
            samples: 50,
            precision: Precision::Tf32,
        };
        let moments = (0..optimizer.moments().len() as u64).map(|which| moment(7 + which)).collect();
        let state = TrainingState { model, moments, steps: 14 };
        Checkpoint {
            settings,
            data_sha256: "5eed".repeat(16),
            epoch: 2,
            metrics: "{\"epoch\":1}\n{\"epoch\":2,\"more\":0}\n".to_owned(),
            state,
        }
    }

    impl Checkpoint {
        fn bytes(&self) -> Vec<u8> {
            bytes(&self.settings, &self.data_sha256, self.epoch, &self.metrics, &self.state).unwrap()
        }
    }

    fn sgd() -> Sgd {
        // A learning rate that a quick reader of decimals has one bit too low.
        Sgd { lr: 0.945_270_695_553_922_3, momentum: 1.0 / 3.0, ..Sgd::default() }
    }

    #[test]
    fn a_checkpoint_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let descent = Sgd { momentum: 0.0, ..sgd() };
        let adamw = AdamW { eps: 1.1e-9, beta2: 0.123_456_789_012_345_68, ..AdamW::default() };
        for optimizer in [sgd().into(), descent.into(), adamw.into()] {
            let written = checkpoint(optimizer);
            std::fs::write(&path, written.bytes()).unwrap();
            assert_eq!(Checkpoint::load(&path).unwrap(), written);
        }
    }

    #[test]
    fn files_that_are_no_checkpoints_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let error_of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let text = format!("{:#}", Checkpoint::load(&path).unwrap_err());
            assert!(
                text.contains("checkpoint.safetensors: not a checkpoint that kiln can go on from"),
                "{text}"
            );
            text
        };
        let good = checkpoint(sgd().into());
        let bytes = good.bytes();
        for cut in [0, 7, 40, bytes.len() / 2, bytes.len() - 1] {
            error_of(&bytes[..cut]);
        }
        let changed = |change: fn(&mut Checkpoint)| {
            let mut other = good.clone();
            change(&mut other);
            error_of(&other.bytes())
        };
        let of_model = HashMap::from([("seed".to_owned(), "0".to_owned())]);
        let model = crate::model_file::bytes(&good.state.model, of_model).unwrap();
        let cases = [
            (error_of(&model), "expected metadata \"format\", found none"),
            (changed(|c| c.epoch = 0), "expected an epoch from 1 to 9, found 0"),
            (changed(|c| c.epoch = 10), "expected an epoch from 1 to 9, found 10"),
            (changed(|c| c.epoch = 1), "expected 7 steps for each of 1 epochs, found 14 in all"),
            (changed(|c| c.state.steps = 1 << 60), "expected 7 steps for each of 2 epochs"),
            (changed(|c| c.metrics.truncate(12)), "metrics: expected 2 lines, found 1"),
            (changed(|c| c.metrics.truncate(c.metrics.len() - 1)), "metrics: expected whole lines"),
            (changed(|c| c.metrics = c.metrics.replace('2', "3")), "line 2: expected that epoch, found 3"),
            (changed(|c| c.metrics = "hello\nworld\n".to_owned()), "metrics, line 1"),
            (
                changed(|c| drop(c.state.moments.pop())),
                "expected a tensor momentum_buffer.fc1.weight, found none",
            ),
            (changed(|c| c.settings.layers[0] = NonZeroUsize::MIN), "fc1.weight: expected shape [3, 1]"),
            (changed(|c| c.settings.layers.truncate(2)), "than those of the run, found fc2.bias"),
            (changed(|c| c.settings.layers.clear()), "layers: expected two or more"),
        ];
        for (found, expected) in cases {
            assert!(found.contains(expected), "{found}");
        }
        // In the text of the settings, which keeps its length.
        let text = |from: &str, to: &str| {
            let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).expect(from);
            let mut other = bytes.clone();
            other[at..at + to.len()].copy_from_slice(to.as_bytes());
            error_of(&other)
        };
        let cases = [
            (text("checkpoint 3", "checkpoint 2"), "found \"kiln checkpoint 2\""),
            (text("fashion-mnist", "fashion-tints"), "expected mnist or fashion-mnist"),
            (text("batch\\\":8", "batch\\\":0"), "metadata \"settings\""),
            (text("batch\\\"", "botch\\\""), "unknown field `botch`"),
        ];
        for (found, expected) in cases {
            assert!(found.contains(expected), "{found}");
        }
    }
}
