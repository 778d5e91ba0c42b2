//! Chooses an engine, and says which, where and why.

use std::num::NonZeroUsize;

use anyhow::Context;
use kiln_engine::{Job, Mlp, Trainer, host_threads};

use crate::cli::EngineChoice;

/// A trainer for the job, and the line that says what it runs on and why.
pub(crate) fn trainer<'d>(
    job: Job<'d>,
    choice: EngineChoice,
    threads: Option<NonZeroUsize>,
) -> anyhow::Result<(Trainer<'d>, String)> {
    let threads = threads_for(&job.model, threads);
    let trainer = Trainer::host(job, threads).context("the job cannot be trained")?;
    let why = match choice {
        EngineChoice::Host => "as asked",
        EngineChoice::Auto => "the engine that this build has",
    };
    let line = format!("Engine: {} on {} ({why})", trainer.describe(), cpu_name());
    Ok((trainer, line))
}

/// The threads that were asked for, or as many as help.
pub(crate) fn threads_for(model: &Mlp, asked: Option<NonZeroUsize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or_else(|| host_threads(model, cores), NonZeroUsize::get)
}

/// The processor's name where the system tells it, otherwise its architecture.
fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| format!("{} CPU", std::env::consts::ARCH), |(_, name)| name.trim().to_owned())
}
