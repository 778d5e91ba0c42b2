//! Chooses an engine, and says which, where and why.

use std::num::NonZeroUsize;

use anyhow::{Context, ensure};
use kiln_engine::{Job, Mlp, Precision, StepRange, Trainer, host_threads, probe};

use crate::cli::{EngineArgs, EngineChoice};

/// A trainer for the job, of which a profiler may see some steps, and the line that says what it runs on and why.
pub(crate) fn trainer<'d>(
    job: Job<'d>,
    batch: Option<usize>,
    arguments: &EngineArgs,
    profile: Option<StepRange>,
) -> anyhow::Result<(Trainer<'d>, String)> {
    if arguments.engine == EngineChoice::Resident {
        ensure!(
            profile.is_none(),
            "--profile-steps needs --engine graph: the resident engine runs all steps in one launch"
        );
        let options = arguments.gpu.resident_options(batch.unwrap_or(1).min(job.train.len()));
        let trainer = Trainer::resident(job, &options).context("the job cannot be trained in one launch")?;
        let line = format!("Engine: {} (as asked)", trainer.describe());
        return Ok((trainer, line));
    }
    let options = arguments.gpu.options(profile);
    let host = match arguments.engine {
        EngineChoice::Host => Some("as asked".to_owned()),
        EngineChoice::Graph | EngineChoice::Resident => None,
        EngineChoice::Auto => probe(arguments.gpu.device).err().map(|reason| reason.to_string()),
    };
    let Some(why) = host else {
        let why = match arguments.engine {
            EngineChoice::Auto => "a GPU that can run it is there",
            _ => "as asked",
        };
        let trainer = Trainer::graph(job, &options).context("the job cannot be trained on the GPU")?;
        let line = format!("Engine: {} ({why})", trainer.describe());
        return Ok((trainer, line));
    };
    ensure!(
        options.precision == Precision::F32,
        "--precision {} needs a GPU: the host engine computes in f32 alone",
        options.precision
    );
    ensure!(
        profile.is_none(),
        "--profile-steps needs a GPU (--engine graph): on the host engine no kernels run that a CUDA profiler could see"
    );
    let threads = threads_for(&job.model, arguments.threads);
    let trainer = Trainer::host(job, threads).context("the job cannot be trained")?;
    let line = format!("Engine: {} on {} ({why})", trainer.describe(), cpu_name());
    Ok((trainer, line))
}

/// The threads that were asked for, or as many as help.
pub(crate) fn threads_for(model: &Mlp, asked: Option<NonZeroUsize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or_else(|| host_threads(model, cores), NonZeroUsize::get)
}

/// The processor's name where the system tells it, otherwise its architecture.
pub(crate) fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| format!("{} CPU", std::env::consts::ARCH), |(_, name)| name.trim().to_owned())
}
