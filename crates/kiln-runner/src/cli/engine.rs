//! What computes, as it can be typed: an engine, and the options that engines have, in one table of who has which.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use kiln_engine::{
    Choices, GraphOptions, Placement, Precision, ResidentOptions, StepRange, Submission, Team,
};

use super::{at_least_one, at_least_zero_whole};

#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    /// What computes; auto takes the fastest that runs here, and says why
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub(crate) engine: EngineChoice,
    #[command(flatten)]
    pub(crate) options: EngineOptions,
}

/// Each means something to some engines: see [`EngineOptions::given`].
#[derive(Debug, Args)]
pub(crate) struct EngineOptions {
    /// Threads of the host engine, at most as many as the model keeps busy [default: as many as that]; results do not depend on it
    #[arg(long, value_parser = at_least_one::<NonZeroUsize>, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Number of the GPU
    #[arg(long, default_value_t = 0, value_parser = at_least_zero_whole::<usize>, value_name = "N")]
    pub(crate) device: usize,
    /// Matrix products on the GPU: f32, tf32 or bf16 [default: f32]
    #[arg(long)]
    pub(crate) precision: Option<Precision>,
    /// How steps reach the GPU
    #[arg(long, value_enum, default_value_t = SubmissionChoice::Captured)]
    submission: SubmissionChoice,
    /// Where the training samples are while the GPU trains
    #[arg(long, value_enum, default_value_t = PlacementChoice::Auto)]
    placement: PlacementChoice,
    /// How the blocks of the resident engine work together [default: cluster where the GPU places one, otherwise, and on sm_120, grid]
    #[arg(long, value_enum)]
    team: Option<TeamChoice>,
    /// Blocks that train a run on the resident engine, 8 or 16 [default: what suits the model and the GPU]
    #[arg(long, value_name = "N", value_parser = blocks)]
    blocks: Option<u32>,
    /// Rows that the graph engine computes at once, at most: it adds up the gradients of the parts of a batch before it updates, which
    /// takes less memory and changes nothing but roundings [default: whole batches]
    #[arg(long, value_parser = at_least_one::<NonZeroUsize>, value_name = "N")]
    micro_batch: Option<NonZeroUsize>,
    /// Rows of a chunk of samples that are streamed, at most [default: what 64 MiB hold]
    #[arg(long, value_parser = at_least_one::<NonZeroUsize>, value_name = "N")]
    chunk_rows: Option<NonZeroUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineChoice {
    /// resident where the job fits it, else graph where there is a GPU, else host
    Auto,
    /// The CPU
    Host,
    /// A GPU, with training steps captured in CUDA graphs
    Graph,
    /// A GPU, whole epochs in one launch: one hidden layer of at most 256 units
    Resident,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SubmissionChoice {
    /// Captured in CUDA graphs and replayed
    Captured,
    /// Kernel by kernel; the same results
    Direct,
    /// Kernel by kernel, waiting for each: an error names its kernel
    Synchronous,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlacementChoice {
    /// On the GPU if they fit, else streamed
    Auto,
    /// On the GPU
    Resident,
    /// On the host, copied in chunks beside the computation; the same results
    Streamed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TeamChoice {
    /// A thread-block cluster, with messages between shared memories (sm_90 and newer)
    Cluster,
    /// Blocks of a cooperative grid, with an exchange by global memory
    Grid,
}

/// A flag that was given, and whom it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineFlag {
    pub(crate) name: &'static str,
    /// The engines that it means something to, as `--engine` names them.
    pub(crate) engines: &'static [&'static str],
    /// Whether it means something where nothing is trained.
    pub(crate) evaluates: bool,
}

const HOST: &[&str] = &["host"];
const GRAPH: &[&str] = &["graph"];
const RESIDENT: &[&str] = &["resident"];
const ANY_GPU: &[&str] = &["graph", "resident"];

impl EngineOptions {
    /// The flags that were given and do not mean something to every engine. (`--precision` does: there is one that the host has.)
    pub(crate) fn given(&self) -> Vec<EngineFlag> {
        use {PlacementChoice as P, SubmissionChoice as S};
        let table = [
            (self.threads.is_some(), "--threads", HOST, true),
            (self.submission == S::Direct, "--submission", GRAPH, false), // evaluations are never captured
            (self.submission == S::Synchronous, "--submission", GRAPH, true),
            (self.placement == P::Streamed, "--placement", GRAPH, true),
            (self.chunk_rows.is_some(), "--chunk-rows", GRAPH, false),
            (self.micro_batch.is_some(), "--micro-batch", GRAPH, true),
            (self.team.is_some(), "--team", RESIDENT, false),
            (self.blocks.is_some(), "--blocks", RESIDENT, false),
            (self.device > 0, "--device", ANY_GPU, true),
            (self.placement == P::Resident, "--placement", ANY_GPU, true),
        ];
        let given = table.into_iter().filter(|(given, ..)| *given);
        given.map(|(_, name, engines, evaluates)| EngineFlag { name, engines, evaluates }).collect()
    }

    /// Whether chunks were asked for of samples that were asked not to be streamed.
    pub(crate) fn chunks_of_nothing(&self) -> bool {
        self.placement == PlacementChoice::Resident && self.chunk_rows.is_some()
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision.unwrap_or(Precision::F32)
    }

    pub(crate) fn graph(&self, profile: Option<StepRange>) -> GraphOptions {
        let submission = match self.submission {
            SubmissionChoice::Captured => Submission::Captured,
            SubmissionChoice::Direct => Submission::Direct,
            SubmissionChoice::Synchronous => Submission::Synchronous,
        };
        let placement = match self.placement {
            PlacementChoice::Auto => Placement::Auto,
            PlacementChoice::Resident => Placement::Resident,
            PlacementChoice::Streamed => Placement::Streamed,
        };
        GraphOptions {
            device: self.device,
            precision: self.precision(),
            submission,
            placement,
            profile,
            chunk_rows: self.chunk_rows.map(NonZeroUsize::get),
            micro_batch: self.micro_batch.map(NonZeroUsize::get),
            choices: Choices::default(),
        }
    }

    pub(crate) fn resident(&self, batch: usize) -> ResidentOptions {
        let (device, precision, blocks) = (self.device, self.precision(), self.blocks);
        let team = self.team.map(|team| match team {
            TeamChoice::Cluster => Team::Cluster,
            TeamChoice::Grid => Team::Grid,
        });
        ResidentOptions { device, precision, batch, team, blocks, epochs: None }
    }
}

fn blocks(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|blocks| [8, 16].contains(blocks)).ok_or_else(|| "expected 8 or 16".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    #[test]
    fn every_option_but_the_precision_is_in_the_table() {
        let command = EngineOptions::augment_args(Command::new("options"));
        for flag in command.get_arguments().filter(|flag| flag.get_id() != "precision") {
            let name = format!("--{}", flag.get_long().unwrap());
            let choice = flag.get_possible_values().last().map(|choice| choice.get_name().to_owned());
            let typed = ["options".to_owned(), name.clone(), choice.unwrap_or_else(|| "8".to_owned())];
            let options = EngineOptions::from_arg_matches(&command.clone().get_matches_from(typed)).unwrap();
            let given: Vec<_> = options.given().iter().map(|flag| flag.name).collect();
            assert_eq!(given, [name]);
        }
    }
}
