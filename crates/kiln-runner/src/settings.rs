//! What a run is, as a checkpoint keeps it, and as it is told.

use std::fmt;
use std::num::NonZeroUsize;

use kiln_data::Source;
use kiln_engine::{Job, Loss, Mlp, Optimizer, Precision, Samples, Schedule};
use serde::{Deserialize, Serialize};

use crate::cli::TrainArgs;
use crate::terminal::plural;

/// What a run is: the same wherever it goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(with = "text")]
    pub(crate) dataset: Source,
    pub(crate) layers: Vec<NonZeroUsize>,
    #[serde(with = "text")]
    pub(crate) loss: Loss,
    pub(crate) optimizer: Optimizer,
    pub(crate) schedule: Schedule,
    pub(crate) batch: NonZeroUsize,
    pub(crate) epochs: NonZeroUsize,
    pub(crate) seed: u64,
    /// Training samples.
    pub(crate) samples: usize,
    #[serde(with = "text")]
    pub(crate) precision: Precision,
}

impl Settings {
    /// The settings and the job of a run that begins on these samples.
    pub(crate) fn new<'d>(arguments: &TrainArgs, train: Samples<'d>) -> anyhow::Result<(Self, Job<'d>)> {
        let job = arguments.job(Mlp::new(&arguments.widths(), arguments.seed)?, train)?;
        let settings = Self {
            dataset: arguments.dataset,
            layers: arguments.layers.clone(),
            loss: job.loss,
            optimizer: job.optimizer,
            schedule: job.schedule,
            batch: arguments.batch,
            epochs: arguments.epochs(),
            seed: arguments.seed,
            samples: job.train.len(),
            precision: arguments.engine.options.precision(),
        };
        Ok((settings, job))
    }

    pub(crate) fn epoch_steps(&self) -> u64 {
        self.samples.div_ceil(self.batch.get()) as u64
    }

    /// The learning rate of a step, counted from 0 over the whole run.
    pub(crate) fn lr(&self, step: u64) -> f64 {
        self.schedule.lr(self.optimizer.lr(), step)
    }

    /// Whether the learning rate is not the textbook's constant one, which goes without saying.
    pub(crate) fn is_scheduled(&self) -> bool {
        self.schedule != Schedule::default()
    }

    /// For `--json`.
    pub(crate) fn described(&self) -> Described<'_> {
        let Self { dataset, samples, layers, loss, optimizer, schedule, precision, batch, epochs, .. } = self;
        Described {
            dataset: dataset.to_string(),
            samples: *samples,
            layers,
            loss: loss.to_string(),
            optimizer: optimizer.to_string(),
            schedule: schedule.to_string(),
            precision: precision.to_string(),
            batch: *batch,
            epochs: *epochs,
        }
    }
}

/// `mnist, 60000 samples; layers 784-128-10; cross-entropy; SGD lr 0.01 momentum 0.9; batch 64; 10 epochs`.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dataset, samples, layers, loss, optimizer, schedule, batch, epochs, .. } = self;
        let widths: Vec<String> = layers.iter().map(NonZeroUsize::to_string).collect();
        write!(f, "{dataset}, {samples} samples; layers {}; {loss}; {optimizer}", widths.join("-"))?;
        if self.is_scheduled() {
            write!(f, "; schedule: {schedule}")?;
        }
        write!(f, "; batch {batch}; {}", plural(epochs.get(), "epoch"))
    }
}

/// Settings that all runs of a sweep share, in words.
#[derive(Debug, Serialize)]
pub(crate) struct Described<'a> {
    dataset: String,
    /// Training samples.
    samples: usize,
    layers: &'a [NonZeroUsize],
    loss: String,
    optimizer: String,
    schedule: String,
    precision: String,
    batch: NonZeroUsize,
    epochs: NonZeroUsize,
}

/// Values as they are typed and printed.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
