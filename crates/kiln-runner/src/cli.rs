//! What can be typed.

mod engine;
mod optimization;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use kiln_data::Source;
use kiln_engine::{Job, Loss, Mlp, Precision, Samples, StepRange};
use serde::Serialize;

pub(crate) use engine::{EngineArgs, EngineChoice, EngineFlag, EngineOptions};
pub(crate) use optimization::OptimizerArgs;

/// Trains multilayer perceptrons, and proves that their gradients are right.
///
/// `kiln train` runs the textbook job: MNIST, layers 784-128-10 with ReLU, cross entropy, SGD with learning rate
/// 0.01 and momentum 0.9, batches of 64, 10 epochs. The data is fetched where it is not there yet.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, arg_required_else_help = true, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that make no sense, found out where the command runs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

impl Usage {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// As of what clap refuses.
    pub(crate) const EXIT_CODE: u8 = 2;
}

impl Cli {
    /// What was typed. Ends the process where it makes no sense, with exit code 2.
    pub(crate) fn read() -> Self {
        let cli = Self::parse();
        let (name, checked) = match &cli.command {
            Command::Train(arguments) => ("train", arguments.train.check(&[])),
            Command::Sweep(arguments) => ("sweep", arguments.check()),
            Command::Profile(arguments) => ("profile", arguments.train.check(&[])),
            _ => return cli,
        };
        if let Err(reason) = checked {
            let mut command = Self::command();
            command.build();
            let command = command.find_subcommand_mut(name).expect("the command that was read");
            command.error(ErrorKind::ArgumentConflict, reason).exit();
        }
        cli
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model, print a line an epoch, and write model.safetensors, checkpoint.safetensors and metrics.jsonl
    #[command(allow_negative_numbers = true)] // so that what is wrong with one is told
    Train(Box<TrainCommand>),
    /// Train many runs that differ in seed, learning rate or momentum, side by side where the resident engine runs, print a table
    /// and keep the best
    #[command(mut_arg("profile_steps", hidden), mut_arg("optimizer", hidden), mut_arg("beta1", hidden))]
    #[command(mut_arg("beta2", hidden), mut_arg("eps", hidden), allow_negative_numbers = true)]
    Sweep(Box<SweepArgs>),
    /// Train on the resident engine and print the cycles of each phase of a step; writes nothing
    #[command(mut_arg("engine", hidden), mut_arg("threads", hidden), mut_arg("submission", hidden))]
    #[command(mut_arg("placement", hidden), mut_arg("micro_batch", hidden), mut_arg("chunk_rows", hidden))]
    #[command(mut_arg("profile_steps", hidden), mut_arg("out", hidden), allow_negative_numbers = true)]
    Profile(Box<ProfileArgs>),
    /// Loss and accuracy of a saved model
    #[command(mut_arg("team", hidden), mut_arg("blocks", hidden), mut_arg("chunk_rows", hidden))]
    Eval(EvalArgs),
    /// Replay recorded training trajectories and compare losses, gradients and parameters
    Parity(ParityArgs),
    /// Fetch and inspect data sets
    Data(DataArgs),
    /// What this machine can train on, a verdict a line; exit code 1 where something is broken
    Doctor(DoctorArgs),
}

impl Command {
    /// Whether the resident engine is the only one that will do.
    pub(crate) fn asks_for_resident(&self) -> bool {
        let engine = match self {
            Command::Train(arguments) => arguments.train.engine.engine,
            Command::Sweep(arguments) => arguments.train.engine.engine,
            Command::Parity(arguments) => return arguments.engine == ParityEngine::Resident,
            Command::Profile(_) => return true,
            _ => return false,
        };
        engine == EngineChoice::Resident
    }
}

/// Flags whose values a checkpoint has: those of the job, and all of [`OptimizerArgs`].
const RECORDED: [&str; 20] = [
    "layers",
    "loss",
    "batch",
    "seed",
    "dataset",
    "optimizer",
    "lr",
    "momentum",
    "dampening",
    "nesterov",
    "beta1",
    "beta2",
    "eps",
    "weight_decay",
    "schedule",
    "warmup_steps",
    "schedule_steps",
    "gamma",
    "min_lr",
    "max_lr",
];

#[derive(Debug, Args)]
pub(crate) struct TrainCommand {
    #[command(flatten)]
    pub(crate) train: TrainArgs,
    /// Go on with the run of a checkpoint.safetensors, in its precision unless --precision is given; --epochs N, N in all, makes it
    /// longer, and a schedule stays what it was; results go beside the checkpoint if there is no --out
    #[arg(long, value_name = "CHECKPOINT", conflicts_with_all = RECORDED)]
    pub(crate) resume: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// Widths: inputs, hidden.., outputs; ReLU between them and nothing after the last
    #[arg(long, action = ArgAction::Set, value_delimiter = ',', default_value = "784,128,10", value_parser = at_least_one::<NonZeroUsize>, value_name = "N,N,..")]
    pub(crate) layers: Vec<NonZeroUsize>,
    /// cross-entropy (mean over the batch) or mse, 1/(2N) sum (y - yhat)²
    #[arg(long, default_value_t = Loss::CrossEntropy)]
    pub(crate) loss: Loss,
    #[command(flatten)]
    pub(crate) optimization: OptimizerArgs,
    /// Samples a batch; the last batch of an epoch may be smaller
    #[arg(long, default_value = "64", value_parser = at_least_one::<NonZeroUsize>, value_name = "N")]
    pub(crate) batch: NonZeroUsize,
    /// Passes over the training samples [default: 10]
    #[arg(long, value_parser = at_least_one::<NonZeroUsize>, value_name = "N")]
    pub(crate) epochs: Option<NonZeroUsize>,
    /// Names initial parameters and the order of samples, the same on every machine
    #[arg(long, default_value_t = 0, value_parser = at_least_zero_whole::<u64>, value_name = "N")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Let a profiler see these steps alone, counted over the whole run from 0, B not among them: see scripts/profile
    #[arg(long, value_name = "A..B")]
    pub(crate) profile_steps: Option<StepRange>,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Data set
    #[arg(long, default_value_t = Source::Mnist)]
    pub(crate) dataset: Source,
    /// Folder for model.safetensors, and beside it checkpoint.safetensors and metrics.jsonl, all rewritten after epochs, or for
    /// kiln sweep, after runs, sweep.jsonl; one run at a time, and not both kinds [default: runs/DATASET, or runs/DATASET-sweep]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print JSON, one object a line, in place of text
    #[arg(long)]
    pub(crate) json: bool,
}

impl TrainArgs {
    pub(crate) fn widths(&self) -> Vec<usize> {
        self.layers.iter().map(|n| n.get()).collect()
    }

    pub(crate) fn epochs(&self) -> NonZeroUsize {
        const DEFAULT: NonZeroUsize = NonZeroUsize::new(10).unwrap();
        self.epochs.unwrap_or(DEFAULT)
    }

    /// Finds values that make no sense, alone or together, where these momenta are to be tried, or none but --momentum.
    fn check(&self, momenta: &[f64]) -> Result<(), String> {
        if let [inputs] = self.layers[..] {
            return Err(format!("--layers {inputs}: expected two or more widths"));
        }
        self.optimization.check(momenta)
    }

    /// Folder for the results of one run.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder_or(self.dataset.to_string())
    }

    /// Folder for those of a sweep, whose best model is not the one that a run's checkpoint goes on from.
    pub(crate) fn folder_of_sweep(&self) -> PathBuf {
        self.folder_or(format!("{}-sweep", self.dataset))
    }

    fn folder_or(&self, default: String) -> PathBuf {
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(default))
    }

    /// The job of these arguments on some samples, from a model of [`TrainArgs::widths`] on.
    ///
    /// # Errors
    /// Where the warm-up leaves nothing of the run for its schedule.
    pub(crate) fn job<'d>(&self, model: Mlp, train: Samples<'d>) -> anyhow::Result<Job<'d>> {
        let epoch = train.len().div_ceil(self.batch.get()) as u64;
        let steps = epoch.saturating_mul(self.epochs().get() as u64);
        let (optimizer, schedule) = self.optimization.optimization(steps)?;
        Ok(Job { model, loss: self.loss, optimizer, schedule, train })
    }
}

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// Seeds, each below the second number: A..B, or a list
    #[arg(long, value_name = "A..B", conflicts_with = "seed")]
    pub(crate) seeds: Option<Seeds>,
    /// Learning rates
    #[arg(long, action = ArgAction::Set, value_delimiter = ',', value_parser = at_least_zero, value_name = "LR,LR,..", conflicts_with_all = ["lr", "max_lr"])]
    pub(crate) lrs: Vec<f64>,
    /// Momenta
    #[arg(long, action = ArgAction::Set, value_delimiter = ',', value_parser = at_least_zero, value_name = "M,M,..", conflicts_with = "momentum")]
    pub(crate) momenta: Vec<f64>,
    #[command(flatten)]
    pub(crate) train: TrainArgs,
}

impl SweepArgs {
    /// What was listed: `seed, lr, momentum`, or some of them.
    pub(crate) fn listed(&self) -> String {
        let lists = [
            (self.seeds.is_some(), "seed"),
            (!self.lrs.is_empty(), "lr"),
            (!self.momenta.is_empty(), "momentum"),
        ];
        let listed: Vec<_> = lists.iter().filter(|(given, _)| *given).map(|(_, name)| *name).collect();
        listed.join(", ")
    }

    fn check(&self) -> Result<(), String> {
        if !self.train.optimization.is_sgd() {
            return Err("kiln sweep varies learning rate and momentum of --optimizer sgd".to_owned());
        }
        self.train.check(&self.momenta)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    pub(crate) train: TrainArgs,
}

/// Seeds of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seeds(pub(crate) Vec<u64>);

/// Runs that a sweep may have of one seed list: a slip of the keyboard should not ask for a million.
const SEEDS_MAX: u64 = 10_000;

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!("expected A..B with A below B and at most {SEEDS_MAX} apart, or A,B,.., found {text:?}")
        };
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
        let seeds = match text.split_once("..") {
            Some((first, end)) => {
                let (first, end) = (number(first)?, number(end)?);
                if end <= first || end - first > SEEDS_MAX {
                    return Err(wrong());
                }
                (first..end).collect()
            }
            None => text.split(',').map(number).collect::<Result<_, _>>()?,
        };
        Ok(Self(seeds))
    }
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// A model.safetensors or checkpoint.safetensors, as `kiln train` writes them
    pub(crate) model: PathBuf,
    /// mnist or fashion-mnist [default: what the model was trained on, by the file's metadata, else mnist]
    #[arg(long)]
    pub(crate) dataset: Option<Source>,
    /// Which of its samples
    #[arg(long, value_enum, default_value_t = Split::Test)]
    pub(crate) split: Split,
    /// cross-entropy or mse [default: what the model was trained with, by the file's metadata, else cross-entropy]
    #[arg(long)]
    pub(crate) loss: Option<Loss>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Print one JSON object in place of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ParityArgs {
    /// Recorded trajectories, as in tests/golden
    #[cfg_attr(feature = "reference", arg(required_unless_present = "random"))]
    #[cfg_attr(not(feature = "reference"), arg(required = true))]
    pub(crate) files: Vec<PathBuf>,
    /// Gradients of random models too, of depth 1 to 5 (resident: 2), against candle in float64 that rounds as the precision does
    #[cfg(feature = "reference")]
    #[arg(long)]
    pub(crate) random: bool,
    /// Names the random models
    #[cfg(feature = "reference")]
    #[arg(long, default_value_t = 0, requires = "random", value_parser = at_least_zero_whole::<u64>, value_name = "N")]
    pub(crate) seed: u64,
    /// What replays them
    #[arg(long, value_enum, default_value_t = ParityEngine::Host)]
    pub(crate) engine: ParityEngine,
    #[command(flatten)]
    pub(crate) options: EngineOptions,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Check the kernels of this precision alone: f32, tf32 or bf16
    #[arg(long)]
    pub(crate) precision: Option<Precision>,
    /// Print one JSON object in place of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Fetch a data set and check it; files that are there and right are kept, others replaced
    Fetch(DataOf),
    /// Where a data set lies, how many samples it has, how many of each class
    Info(DataOf),
}

#[derive(Debug, Args)]
pub(crate) struct DataOf {
    /// mnist or fashion-mnist
    pub(crate) dataset: Source,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct DataDir {
    /// Where data sets live [default: what KILN_DATA names, or the platform's cache directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ParityEngine {
    Host,
    Graph,
    Resident,
    #[cfg(feature = "reference")]
    ReferenceF32,
    #[cfg(feature = "reference")]
    ReferenceF64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Split {
    Train,
    Test,
}

/// A flag that a command shares with others and always refuses: there is a reason to tell, but nothing to offer.
fn hidden(flag: Arg) -> Arg {
    flag.hide(true)
}

fn at_least_one<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "expected a whole number, at least 1".to_owned())
}

fn at_least_zero_whole<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "expected a whole number, at least 0".to_owned())
}

fn at_least_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && (value as f32).is_finite() && (value as f32 > 0.0 || is_zero(text)) => {
            Ok(value)
        }
        _ => Err("expected 0, or a number from 1e-45 to 3.4e38, which float32 has".to_owned()),
    }
}

/// Whether a number is written as zero, not only read as that because it is too small.
fn is_zero(number: &str) -> bool {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    !mantissa.contains(|digit: char| digit.is_ascii_digit() && digit != '0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_float32_has_not_are_no_numbers() {
        for text in ["0", "0.0e9", "0.01", "1e-45", "3.4e38"] {
            assert_eq!(at_least_zero(text), Ok(text.parse().unwrap()));
        }
        for text in ["1_0e0", "1e-400", "1e-50", "0.0001e-60", "3.5e38", "-0.1", "nan", "inf", ""] {
            assert!(at_least_zero(text).unwrap_err().contains("which float32 has"), "{text}");
        }
    }

    #[test]
    fn a_checkpoint_has_every_flag_of_the_optimizer() {
        let flags = OptimizerArgs::augment_args(clap::Command::new("flags"));
        let flags: Vec<&str> = flags.get_arguments().map(|flag| flag.get_id().as_str()).collect();
        assert_eq!(flags, RECORDED[5..]);
    }
}
