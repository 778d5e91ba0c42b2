//! Chooses an engine, and says which, where and why.

use std::num::NonZeroUsize;

use anyhow::{Context, anyhow, ensure};
use kiln_engine::{Error, Job, Mlp, Precision, ResidentOptions, StepRange, Trainer, host_threads, probe};

use crate::cli::{EngineArgs, EngineChoice, GpuArgs, PlacementChoice, Usage};

/// A trainer for the job, of which a profiler may see some steps, and what it runs on and why. `batch` is how
/// it will be trained, if it will.
pub(crate) fn trainer<'d>(
    job: Job<'d>,
    batch: Option<NonZeroUsize>,
    arguments: &EngineArgs,
    profile: Option<StepRange>,
) -> anyhow::Result<(Trainer<'d>, String)> {
    let asked = "as asked".to_owned();
    if batch.is_none() {
        let flags = arguments.for_training();
        ensure!(flags.is_empty(), Usage::new(format!("{}: nothing is trained", no_effect(&flags))));
    }
    every_flag_has_effect(arguments, profile)?;
    match arguments.engine {
        EngineChoice::Host => host(job, arguments, profile, &asked),
        EngineChoice::Graph => graph(job, arguments, profile, &asked),
        EngineChoice::Resident => {
            ensure!(
                profile.is_none(),
                Usage::new(
                    "--profile-steps needs --engine graph: the resident engine runs all steps in one launch"
                )
            );
            let options = resident_options(&job, batch, &arguments.gpu);
            let trainer = Trainer::resident(job, &options)?; // its errors name the engine
            let line = format!("{} ({asked})", trainer.describe());
            Ok((trainer, line))
        }
        EngineChoice::Auto => match probe(arguments.gpu.device) {
            Err(reason) => host(job, arguments, profile, &reason.to_string()),
            Ok(_) => on_gpu(job, batch, arguments, profile),
        },
    }
}

/// Refuses flags that mean nothing to the engine that was asked for, or to any.
fn every_flag_has_effect(arguments: &EngineArgs, profile: Option<StepRange>) -> Result<(), Usage> {
    let asked = match arguments.engine {
        EngineChoice::Auto => return no_two_engines(&arguments.gpu, profile),
        EngineChoice::Host => "host",
        EngineChoice::Graph => "graph",
        EngineChoice::Resident => "resident",
    };
    belongs_to(asked, arguments.threads, &arguments.gpu, " or auto")
}

/// Refuses flags that mean nothing to an engine; `or` ends the list of those that could be asked for instead.
pub(crate) fn belongs_to(
    asked: &str,
    threads: Option<NonZeroUsize>,
    gpu: &GpuArgs,
    or: &str,
) -> Result<(), Usage> {
    if let Some((engines, flags)) = foreign(asked, threads, gpu).first() {
        let (effect, engines) = (no_effect(flags), engines.join(", "));
        return Err(Usage::new(format!("{effect} with --engine {asked}: expected --engine {engines}{or}")));
    }
    chunks_are_streamed(gpu)
}

/// Flags that are set and mean nothing to an engine, beside the engines that they are for.
fn foreign(
    engine: &str,
    threads: Option<NonZeroUsize>,
    gpu: &GpuArgs,
) -> Vec<(&'static [&'static str], Vec<&'static str>)> {
    let threads = if threads.is_some() { vec!["--threads"] } else { vec![] };
    let meant: [(&[&str], _); 4] = [
        (&["host"], threads),
        (&["graph"], gpu.for_graph()),
        (&["resident"], gpu.for_resident()),
        (&["graph", "resident"], gpu.for_any_gpu()),
    ];
    meant.into_iter().filter(|(engines, flags)| !engines.contains(&engine) && !flags.is_empty()).collect()
}

/// What an engine says that was found, not asked for, of flags that are for others: the same command is good on another machine.
pub(crate) fn unused(engine: &str, arguments: &EngineArgs) -> String {
    let flags: Vec<&str> =
        foreign(engine, arguments.threads, &arguments.gpu).into_iter().flat_map(|(_, flags)| flags).collect();
    if flags.is_empty() { String::new() } else { format!("; {} on it", no_effect(&flags)) }
}

/// Refuses flags of the graph engine beside flags of the resident one, where either may be taken.
fn no_two_engines(gpu: &GpuArgs, profile: Option<StepRange>) -> Result<(), Usage> {
    let (mut graph, resident) = (gpu.for_graph(), gpu.for_resident());
    graph.extend(profile.map(|_| "--profile-steps"));
    if !graph.is_empty() && !resident.is_empty() {
        let (graph, resident) = (graph.join(" and "), resident.join(" and "));
        return Err(Usage::new(format!(
            "{graph} for --engine graph, {resident} for --engine resident: expected one engine's"
        )));
    }
    chunks_are_streamed(gpu)
}

fn chunks_are_streamed(gpu: &GpuArgs) -> Result<(), Usage> {
    if gpu.placement == PlacementChoice::Resident && gpu.chunk_rows.is_some() {
        return Err(Usage::new("--chunk-rows has no effect with --placement resident"));
    }
    Ok(())
}

/// `--a has no effect`, `--a and --b have no effect`.
pub(crate) fn no_effect(flags: &[&str]) -> String {
    let verb = if flags.len() == 1 { "has" } else { "have" };
    format!("{} {verb} no effect", flags.join(" and "))
}

/// The resident engine where it is made for the job and the device, else the graph engine.
fn on_gpu<'d>(
    job: Job<'d>,
    batch: Option<NonZeroUsize>,
    arguments: &EngineArgs,
    profile: Option<StepRange>,
) -> anyhow::Result<(Trainer<'d>, String)> {
    let why_not = if batch.is_none() {
        None // nothing will be trained
    } else if profile.is_some() || !arguments.gpu.for_graph().is_empty() {
        Some("options of the graph engine were given".to_owned())
    } else {
        let options = resident_options(&job, batch, &arguments.gpu);
        match Trainer::resident(job.clone(), &options) {
            Ok(trainer) => {
                let why = "a GPU is there that can run it, and it is made for this job";
                let line = format!("{} ({why}{})", trainer.describe(), unused("resident", arguments));
                return Ok((trainer, line));
            }
            Err(Error::Resident { what, expected, found }) => {
                Some(format!("not resident: {what}: expected {expected}, found {found}"))
            }
            // It keeps a second copy of the data on the device; the graph engine can stream.
            Err(Error::DeviceMemory { what, .. }) => Some(format!("not resident: no memory for {what}")),
            Err(error) => return Err(error.into()),
        }
    };
    let why = why_not.map_or(String::new(), |reason| format!("; {reason}"));
    graph(job, arguments, profile, &format!("a GPU that can run it is there{why}"))
}

/// How runs of such a job may train side by side, and whether that was asked for; `None` where another engine was, where there is no
/// GPU, or where options of the graph engine were given.
pub(crate) fn for_sweep(
    job: &Job<'_>,
    batch: NonZeroUsize,
    arguments: &EngineArgs,
) -> anyhow::Result<Option<(ResidentOptions, bool)>> {
    every_flag_has_effect(arguments, None)?;
    let options = resident_options(job, Some(batch), &arguments.gpu);
    Ok(match arguments.engine {
        EngineChoice::Resident => Some((options, true)),
        EngineChoice::Auto if probe(arguments.gpu.device).is_ok() && arguments.gpu.for_graph().is_empty() => {
            Some((options, false))
        }
        _ => None,
    })
}

/// Batches are no larger than the epoch.
fn resident_options(job: &Job<'_>, batch: Option<NonZeroUsize>, gpu: &GpuArgs) -> ResidentOptions {
    gpu.resident_options(batch.map_or(1, NonZeroUsize::get).min(job.train.len()))
}

fn graph<'d>(
    job: Job<'d>,
    arguments: &EngineArgs,
    profile: Option<StepRange>,
    why: &str,
) -> anyhow::Result<(Trainer<'d>, String)> {
    let trainer = Trainer::graph(job, &arguments.gpu.options(profile)).context("the graph engine")?;
    let line = format!("{} ({why}{})", trainer.describe(), unused("graph", arguments));
    Ok((trainer, line))
}

fn host<'d>(
    job: Job<'d>,
    arguments: &EngineArgs,
    profile: Option<StepRange>,
    why: &str,
) -> anyhow::Result<(Trainer<'d>, String)> {
    let precision = arguments.gpu.precision();
    // Where the host was not asked for, it is the GPU that is missing.
    let refused = |text: String| match arguments.engine {
        EngineChoice::Host => Usage::new(text).into(),
        _ => anyhow!(text),
    };
    if precision != Precision::F32 {
        let text = "needs a GPU: the host engine computes in f32 alone";
        return Err(refused(format!("--precision {precision} {text}")));
    }
    if profile.is_some() {
        let text = "on the host engine no kernels run that a CUDA profiler could see";
        return Err(refused(format!("--profile-steps needs a GPU (--engine graph): {text}")));
    }
    let threads = threads_for(&job.model, arguments.threads);
    let trainer = Trainer::host(job, threads).context("the host engine")?;
    let unused = unused("host", arguments);
    let line = format!("{} on {} ({why}{unused})", trainer.describe(), cpu_name());
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
