//! What the engines for GPUs choose by, measured: each choice and its alternatives on the same job, alternating in one run.
//!
//! Every line is a job and a variant with its median time a step and the ratio to the engine's own choice: above 1 the variant is
//! slower. The borders themselves are [`Choices`]; those of the resident engine are `--team` and `--blocks`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use kiln_engine::{
    Choices, GraphOptions, Job, Loss, Mlp, Precision, ResidentOptions, Samples, Schedule, Sgd, Targets, Team,
    Trainer, probe,
};
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
const ALL: &[Precision] = &[Precision::F32, Precision::Tf32, Precision::Bf16];

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

/// Synthetic pixels and labels, enough for so many steps.
struct Data {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    width: usize,
}

impl Data {
    fn new(rows: usize, width: usize, classes: usize) -> Self {
        let mut state = 7u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let labels = (0..rows).map(|_| noise() % classes as u8).collect();
        Self { pixels: (0..rows * width).map(|_| noise()).collect(), labels, width }
    }

    fn job(&self, layers: &[usize]) -> Result<Job<'_>> {
        Ok(Job {
            model: Mlp::new(layers, 0)?,
            loss: Loss::CrossEntropy,
            optimizer: Sgd { lr: 0.01, momentum: 0.9, ..Sgd::default() }.into(),
            schedule: Schedule::default(),
            train: Samples::pixels(&self.pixels, self.width, Targets::Labels(&self.labels))?,
        })
    }
}

/// What a variant has taken, in microseconds a step: an epoch each, or why it cannot run.
struct Measured {
    variant: String,
    times: Result<Vec<f64>, String>,
}

impl Measured {
    /// Median, least and most.
    fn summary(&self) -> Option<[f64; 3]> {
        let mut times = self.times.clone().ok()?;
        times.sort_by(f64::total_cmp);
        Some([times[times.len() / 2], *times.first()?, *times.last()?])
    }
}

fn trainer(
    job: Job<'_>,
    variant: Variant,
    device: usize,
    precision: Precision,
    batch: usize,
) -> Result<Trainer<'_>, kiln_engine::Error> {
    match variant {
        Variant::Graph(choices) => {
            Trainer::graph(job, &GraphOptions { device, precision, choices, ..GraphOptions::default() })
        }
        Variant::Resident { team, blocks } => {
            Trainer::resident(job, &ResidentOptions { device, precision, batch, team, blocks, epochs: None })
        }
    }
}

/// All variants on a job, an epoch each in turn; the first epoch, which captures, is not counted.
fn measure(
    arguments: &Arguments,
    variants: &[(String, Variant)],
    layers: &[usize],
    batch: usize,
    precision: Precision,
) -> Result<Vec<Measured>> {
    let steps = if arguments.quick { 3 } else { (1 << 18) / batch.clamp(1024, 1 << 14) };
    let data = Data::new(steps * batch, layers[0], layers[layers.len() - 1]);
    let order: Vec<u32> = (0..(steps * batch) as u32).rev().collect();
    let mut trainers = Vec::new();
    let mut measured = Vec::new();
    for (name, variant) in variants {
        let opened = trainer(data.job(layers)?, *variant, arguments.device, precision, batch);
        measured.push(Measured {
            variant: name.clone(),
            times: opened.as_ref().map(|_| Vec::new()).map_err(ToString::to_string),
        });
        trainers.push(opened.ok());
    }
    for round in 0..=arguments.rounds {
        for (trainer, measured) in trainers.iter_mut().zip(&mut measured) {
            let Some(trainer) = trainer else { continue };
            let started = Instant::now();
            let epoch = trainer.epoch(&order, batch).with_context(|| measured.variant.clone())?;
            let time = started.elapsed().as_secs_f64() / epoch.steps as f64 * 1e6;
            if let (Ok(times), true) = (&mut measured.times, round > 0) {
                times.push(time);
            }
        }
    }
    Ok(measured)
}

fn report(arguments: &Arguments, question: &str, job: &str, measured: &[Measured]) {
    let own = measured.first().and_then(Measured::summary).map(|[median, ..]| median);
    for found in measured {
        let ratio = found.summary().zip(own).map(|([median, ..], own)| median / own);
        if arguments.json {
            let [median, least, most] = found.summary().map_or([None; 3], |times| times.map(Some));
            let error = found.times.as_ref().err();
            println!(
                "{}",
                json!({
                    "question": question, "job": job, "variant": found.variant, "us_per_step": median, "min": least,
                    "max": most, "ratio": ratio, "error": error
                })
            );
        } else {
            let result = match (&found.times, found.summary(), ratio) {
                (Err(reason), ..) => reason.clone(),
                (_, Some([median, least, most]), Some(ratio)) => {
                    format!("{median:10.2} µs ({least:.2} to {most:.2})  x {ratio:.2}")
                }
                (_, Some([median, ..]), None) => format!("{median:10.2} µs"),
                (_, None, _) => "nothing measured".into(),
            };
            println!("{question:14} {job:32} {:14} {result}", found.variant);
        }
    }
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
                    report(arguments, question.name, &job, &measured);
                }
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("choices: {error:#}");
            ExitCode::FAILURE
        }
    }
}
