//! `kiln profile`: where the time of a step goes, inside the one launch of the resident engine.

use anyhow::{Context, ensure};
use kiln_data::Shuffle;
use kiln_engine::{Mlp, PhaseProfile, probe, profile_phases};
use serde_json::json;

use super::data;
use crate::cli::{EngineChoice, ProfileArgs, TrainArgs, Usage};
use crate::engine::{for_others, no_effect};
use crate::terminal::{self, say};

/// Samples of a profile, whose orders are made at once, and lie on the host twice: 512 MiB.
const ROWS_MAX: usize = 1 << 26;

pub(crate) fn run(arguments: &ProfileArgs) -> anyhow::Result<()> {
    let train_args = &arguments.train;
    every_flag_has_effect(train_args)?;
    // First, since the orders of all epochs are made at once.
    probe(train_args.engine.options.device)?;
    let model = Mlp::new(&train_args.widths(), train_args.seed)?;
    let dataset = data::load_or_fetch(train_args.dataset, &train_args.data)?;
    let train = data::samples(&dataset.train)?;
    let (batch, epochs) = (train_args.batch.get().min(train.len()), train_args.epochs().get());
    ensure!(
        epochs.saturating_mul(train.len()) <= ROWS_MAX,
        "--epochs {epochs} of {} samples: expected at most {ROWS_MAX} samples in the one launch of a profile",
        train.len()
    );
    let job = train_args.job(model, train)?;
    let shuffle = Shuffle::new(train.len(), train_args.seed);
    let orders: Vec<_> = (0..epochs).map(|epoch| shuffle.epoch(epoch as u64)).collect();
    let options = train_args.engine.options.resident(batch);
    let profile =
        profile_phases(job, &options, &orders).context("the job cannot be profiled in one launch")?;
    if train_args.json { say_json(&profile) } else { say_table(&profile) }
}

/// Refuses what `kiln train` takes and a profile has no use for.
fn every_flag_has_effect(arguments: &TrainArgs) -> anyhow::Result<()> {
    ensure!(
        arguments.profile_steps.is_none(),
        Usage::new("--profile-steps is for kiln train --engine graph, whose kernels a CUDA profiler can see")
    );
    ensure!(
        matches!(arguments.engine.engine, EngineChoice::Auto | EngineChoice::Resident),
        Usage::new("kiln profile is of the resident engine: expected --engine resident or auto")
    );
    ensure!(arguments.out.is_none(), Usage::new("--out has no effect: kiln profile writes nothing"));
    let flags = for_others("resident", &arguments.engine.options);
    ensure!(flags.is_empty(), Usage::new(format!("{} on the resident engine", no_effect(&flags))));
    Ok(())
}

fn say_json(profile: &PhaseProfile) -> anyhow::Result<()> {
    let phase = |phase: &kiln_engine::PhaseCycles| json!({ "phase": phase.name, "cycles": phase.mean, "least": phase.range.0, "most": phase.range.1 });
    let phases: Vec<_> = profile.phases.iter().map(phase).collect();
    let (engine, steps, ns) = (&profile.engine, profile.steps, profile.ns_per_step);
    terminal::say_json(&json!({ "engine": engine, "steps": steps, "ns_per_step": ns, "phases": phases }))
}

fn say_table(profile: &PhaseProfile) -> anyhow::Result<()> {
    say(&format!("Engine: {}", profile.engine))?;
    say(&format!("{} steps, {:.0} ns a step, timers included", profile.steps, profile.ns_per_step))?;
    say(&format!("{:22} {:>12} {:>7}   least to most of a block", "phase", "cycles/step", "share"))?;
    let all: f64 = profile.phases.iter().map(|phase| phase.mean).sum();
    for phase in &profile.phases {
        let (mean, share, (least, most)) = (phase.mean, 100.0 * phase.mean / all, phase.range);
        say(&format!("{:22} {mean:>12.0} {share:>6.1}%   {least:.0} to {most:.0}", phase.name))?;
    }
    say(&format!("{:22} {all:>12.0}", "all"))
}
