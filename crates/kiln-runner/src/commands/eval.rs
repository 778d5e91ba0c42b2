//! `kiln eval`.

use anyhow::{Context, anyhow};
use kiln_engine::{Job, Loss, Schedule, Sgd};

use super::data;
use crate::cli::{EvalArgs, Split};
use crate::terminal::say;
use crate::{engine, model_file};

pub(crate) fn run(arguments: &EvalArgs) -> anyhow::Result<()> {
    let (model, metadata) = model_file::load(&arguments.model)?;
    let loss = loss(arguments, metadata.get("loss"))?;
    let dataset = data::load_or_fetch(arguments.dataset, &arguments.data)?;
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
            "samples": samples.len(), "loss": found.loss, "accuracy": found.accuracy, "engine": line,
        });
        return say(&object.to_string());
    }
    say(&format!("Engine: {line}"))?;
    let accuracy = found.accuracy.map_or(String::new(), |a| format!(", Accuracy: {:.2}%", 100.0 * a));
    say(&format!("Samples: {}, Loss: {:.4}{accuracy}", samples.len(), found.loss))
}

/// The loss that was asked for, or that of the training.
fn loss(arguments: &EvalArgs, trained: Option<&String>) -> anyhow::Result<Loss> {
    let named = |name: &String| {
        name.parse().map_err(|reason: String| {
            let path = arguments.model.display();
            anyhow!("{path}: metadata \"loss\": {reason}; --loss names one")
        })
    };
    arguments.loss.map_or_else(|| trained.map_or(Ok(Loss::CrossEntropy), named), Ok)
}
