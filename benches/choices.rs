//! What the engines for GPUs choose by, measured: each choice and its alternatives on the same job, alternating in one run.
//!
//! Every line is a job and a variant with its median time a step and the ratio to the engine's own choice: above 1 the variant is
//! slower. The borders themselves are [`Choices`]; those of the resident engine are `--team` and `--blocks`.

mod common;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use common::{Data, Measured, alternate, end, report};
use kiln_engine::{Choices, GraphOptions, Job, Precision, ResidentOptions, Team, Trainer, probe};
use serde_json::json;

#[derive(Parser)]
#[command(about = "Measures what the engines for GPUs choose by")]
struct Arguments {
    /// Number of the GPU
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Questions to ask, by name: head, tiles, copies, warpgroups, captured-steps, blocks [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Epochs that each variant is measured for
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A JSON object a line, in place of the table
    #[arg(long)]
    json: bool,
    /// Tiny jobs, which tell nothing of speed: that all of it runs
    #[arg(long)]
    quick: bool,
}

/// An engine, and how it is to choose.
#[derive(Clone, Copy)]
enum Variant {
    Graph(Choices),
    Resident { team: Option<Team>, blocks: Option<u32> },
}

/// What is asked, on which jobs.
struct Question {
    name: &'static str,
    layers: &'static [&'static [usize]],
    batches: &'static [usize],
    precisions: &'static [Precision],
    /// The engine's own choice, then others.
    variants: Vec<(String, Variant)>,
}

const SEED_JOB: &[usize] = &[784, 128, 10];
const ALL: &[Precision] = &Precision::ALL;

fn questions() -> Vec<Question> {
    let own = Choices::default();
    let copied_above = |most| Choices { copied_weights_max: most, copied_f32_weights_max: Some(most), ..own };
    let graph = |variants: Vec<(String, Choices)>| {
        let own = [("as chosen".to_owned(), own)];
        own.into_iter().chain(variants).map(|(name, choices)| (name, Variant::Graph(choices))).collect()
    };
    let resident = |team: Option<Team>, blocks: Option<u32>| {
        let name = match (team, blocks) {
            (None, _) => "as chosen".to_owned(),
            (Some(Team::Cluster), blocks) => format!("cluster of {}", blocks.unwrap_or_default()),
            (Some(Team::Grid), blocks) => format!("grid of {}", blocks.unwrap_or_default()),
        };
        (name, Variant::Resident { team, blocks })
    };
    let teams = [Team::Cluster, Team::Grid].into_iter().flat_map(|team| [8, 16].map(|blocks| (team, blocks)));
    vec![
        Question {
            name: "head",
            layers: &[SEED_JOB, &[784, 1024, 10]],
            batches: &[64, 512, 8192, 16_384], // the last beyond the border
            precisions: &[Precision::F32],
            variants: graph(vec![
                ("one kernel".into(), Choices { head_products_max: u64::MAX, ..own }),
                ("two kernels".into(), Choices { head_products_max: 0, ..own }),
            ]),
        },
        Question {
            name: "tiles",
            layers: &[SEED_JOB, &[784, 512, 512, 10]],
            batches: &[64, 512, 2048],
            precisions: ALL,
            variants: graph(
                [0, 50, 200, 400]
                    .map(|percent| (format!("{percent}%"), Choices { tile_blocks_percent: percent, ..own }))
                    .into(),
            ),
        },
        Question {
            name: "copies",
            layers: &[&[784, 256, 256, 10], &[784, 512, 512, 10], &[784, 1024, 1024, 10]],
            batches: &[64, 1024],
            precisions: ALL,
            variants: graph(vec![
                ("copies".into(), copied_above(0)),
                ("no copies".into(), copied_above(usize::MAX)),
            ]),
        },
        Question {
            name: "warpgroups",
            layers: &[&[784, 1024, 1024, 10], &[784, 4096, 4096, 10]],
            batches: &[1024, 8192],
            precisions: &[Precision::F32, Precision::Bf16],
            variants: graph(
                [(128, "128 columns"), (0, "none")]
                    .map(|(most, name)| (name.into(), Choices { warpgroup_columns_max: most, ..own }))
                    .into(),
            ),
        },
        Question {
            name: "captured-steps",
            layers: &[SEED_JOB],
            batches: &[64],
            precisions: &[Precision::F32],
            variants: graph(
                [1, 4, 64]
                    .map(|steps| (format!("{steps} steps"), Choices { captured_steps: steps, ..own }))
                    .into(),
            ),
        },
        Question {
            name: "blocks",
            layers: &[SEED_JOB, &[784, 64, 10]],
            batches: &[64],
            precisions: ALL,
            variants: [resident(None, None)]
                .into_iter()
                .chain(teams.map(|(team, blocks)| resident(Some(team), Some(blocks))))
                .collect(),
        },
    ]
}

fn trainer(
    job: Job<'_>,
    variant: Variant,
    device: usize,
    precision: Precision,
    batch: usize,
) -> Result<Trainer<'_>> {
    Ok(match variant {
        Variant::Graph(choices) => {
            Trainer::graph(job, &GraphOptions { device, precision, choices, ..GraphOptions::default() })?
        }
        Variant::Resident { team, blocks } => {
            Trainer::resident(job, &ResidentOptions { device, precision, batch, team, blocks, epochs: None })?
        }
    })
}

/// All variants on a job; the first epoch, which captures, is not counted.
fn measure(
    arguments: &Arguments,
    variants: &[(String, Variant)],
    layers: &[usize],
    batch: usize,
    precision: Precision,
) -> Result<Vec<Measured>> {
    let steps = if arguments.quick { 3 } else { (1 << 18) / batch.clamp(1024, 1 << 14) };
    let data = Data::new(steps * batch, layers);
    let order: Vec<u32> = (0..(steps * batch) as u32).rev().collect();
    let mut trainers = Vec::new();
    for (name, variant) in variants {
        trainers.push((name.clone(), trainer(data.job()?, *variant, arguments.device, precision, batch)));
    }
    Ok(alternate(arguments.rounds, trainers, |_, trainer| Ok(trainer.epoch(&order, batch)?.steps)))
}

fn run(arguments: &Arguments) -> Result<()> {
    let questions = questions();
    for name in &arguments.only {
        let known = questions.iter().map(|question| question.name).collect::<Vec<_>>().join(", ");
        ensure!(
            questions.iter().any(|question| question.name == name),
            "--only: expected {known}, found {name}"
        );
    }
    let device = probe(arguments.device)?;
    match arguments.json {
        true => println!("{}", json!({"device": device.to_string(), "simulated": device.is_simulator()})),
        false => println!("{device}"),
    }
    let tiny: (&[&[usize]], &[usize]) = (&[&[21, 18, 5]], &[8]);
    for question in questions {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == question.name) {
            continue;
        }
        let Question { layers, batches, precisions, .. } = question;
        let (layers, batches, precisions) = match arguments.quick {
            true => (tiny.0, tiny.1, &precisions[precisions.len() - 1..]),
            false => (layers, batches, precisions),
        };
        for layers in layers {
            for &batch in batches {
                for &precision in precisions {
                    let shape = layers.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
                    let job = format!("{shape}, batch {batch}, {precision}");
                    let measured = measure(arguments, &question.variants, layers, batch, precision)
                        .with_context(|| format!("{}, {job}", question.name))?;
                    let columns = [("question", question.name, 14), ("job", job.as_str(), 32)];
                    report(arguments.json, &columns, 14, &measured);
                }
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    end("choices", run(&Arguments::parse()))
}
