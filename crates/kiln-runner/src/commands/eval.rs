//! `kiln eval`.

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, anyhow};
use kiln_data::Source;
use kiln_engine::{Job, Loss, Schedule, Sgd};

use super::data;
use crate::cli::{EvalArgs, Split};
use crate::terminal::{say, say_json};
use crate::{engine, model_file};

pub(crate) fn run(arguments: &EvalArgs) -> anyhow::Result<()> {
    engine::check(&arguments.engine, false, None)?;
    let (model, metadata) = model_file::load(&arguments.model)?;
    let recorded = Recorded { path: &arguments.model, metadata: &metadata };
    let loss = recorded.unless(arguments.loss, "loss", Loss::CrossEntropy)?;
    let source = recorded.unless(arguments.dataset, "dataset", Source::Mnist)?;
    let dataset = data::load_or_fetch(source, &arguments.data)?;
    let samples = data::samples(match arguments.split {
        Split::Train => &dataset.train,
        Split::Test => &dataset.test,
    })?;
    let optimizer = Sgd::default().into(); // nothing is trained
    let job = Job { model, loss, optimizer, schedule: Schedule::default(), train: samples };
    let of_model = || arguments.model.display().to_string();
    let (mut trainer, line) = engine::trainer(job, None, &arguments.engine, None).with_context(of_model)?;
    let found = trainer.evaluate(&samples).with_context(of_model)?;
    if arguments.json {
        let object = serde_json::json!({
            "dataset": source.to_string(), "split": arguments.split, "samples": samples.len(), "loss": found.loss, "accuracy": found.accuracy, "engine": line,
        });
        return say_json(&object);
    }
    say(&format!("Engine: {line}"))?;
    let accuracy = found.accuracy.map_or(String::new(), |a| format!(", Accuracy: {:.2}%", 100.0 * a));
    say(&format!("Samples: {} of {source}, Loss: {:.4}{accuracy}", samples.len(), found.loss))
}

/// What a model's file says of its training.
struct Recorded<'a> {
    path: &'a Path,
    metadata: &'a HashMap<String, String>,
}

impl Recorded<'_> {
    /// What was asked for by the flag of this name, or was recorded under it, or is the default.
    fn unless<T: FromStr<Err = String>>(
        &self,
        asked: Option<T>,
        name: &str,
        default: T,
    ) -> anyhow::Result<T> {
        match (asked, self.metadata.get(name)) {
            (Some(asked), _) => Ok(asked),
            (None, None) => Ok(default),
            (None, Some(text)) => text.parse().map_err(|reason: String| {
                anyhow!("{}: metadata {name:?}: {reason}; --{name} names one", self.path.display())
            }),
        }
    }
}
