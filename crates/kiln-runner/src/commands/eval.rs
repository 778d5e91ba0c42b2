//! `kiln eval`.

use anyhow::Context;
use kiln_engine::{Job, Schedule, Sgd};

use super::data;
use crate::cli::{EvalArgs, Split};
use crate::terminal::say;
use crate::{engine, model_file};

pub(crate) fn run(arguments: &EvalArgs) -> anyhow::Result<()> {
    let model = model_file::load(&arguments.model)?;
    let dataset = data::load_or_fetch(arguments.dataset, &arguments.data)?;
    let samples = data::samples(match arguments.split {
        Split::Train => &dataset.train,
        Split::Test => &dataset.test,
    })?;
    let optimizer = Sgd::default().into(); // nothing is trained
    let job = Job { model, loss: arguments.loss, optimizer, schedule: Schedule::default(), train: samples };
    let of_model = || arguments.model.display().to_string();
    let (mut trainer, line) = engine::trainer(job, None, &arguments.engine, None).with_context(of_model)?;
    let found = trainer.evaluate(&samples).with_context(of_model)?;
    if arguments.json {
        let object = serde_json::json!({
            "samples": samples.len(), "loss": found.loss, "accuracy": found.accuracy, "engine": line,
        });
        return say(&object.to_string());
    }
    say(&line)?;
    let accuracy = found.accuracy.map_or(String::new(), |a| format!(", Accuracy: {:.2}%", 100.0 * a));
    say(&format!("Samples: {}, Loss: {:.4}{accuracy}", samples.len(), found.loss))
}
