//! What the benches share: data, and variants of a job that are measured in turn.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use kiln_engine::{Job, Loss, Mlp, Samples, Schedule, Sgd, Targets};
use serde_json::{Value, json};

/// Synthetic pixels and labels.
pub(crate) struct Data {
    /// (rows, inputs)
    pub(crate) pixels: Vec<u8>,
    pub(crate) labels: Vec<u8>,
    layers: Vec<usize>,
}

impl Data {
    pub(crate) const LR: f32 = 0.01;
    pub(crate) const MOMENTUM: f32 = 0.9;

    /// For a model of these layers.
    pub(crate) fn new(rows: usize, layers: &[usize]) -> Self {
        let (width, classes) = (layers[0], layers[layers.len() - 1]);
        let mut state = 7u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let labels = (0..rows).map(|_| noise() % classes as u8).collect();
        Self { pixels: (0..rows * width).map(|_| noise()).collect(), labels, layers: layers.to_vec() }
    }

    /// The textbook job on them.
    pub(crate) fn job(&self) -> Result<Job<'_>> {
        let sgd = Sgd { lr: Self::LR.into(), momentum: Self::MOMENTUM.into(), ..Sgd::default() };
        Ok(Job {
            model: Mlp::new(&self.layers, 0)?,
            loss: Loss::CrossEntropy,
            optimizer: sgd.into(),
            schedule: Schedule::default(),
            train: Samples::pixels(&self.pixels, self.layers[0], Targets::Labels(&self.labels))?,
        })
    }
}

/// What a variant has taken, in microseconds a step: an epoch each, or why it cannot run.
pub(crate) struct Measured {
    variant: String,
    times: Result<Vec<f64>, String>,
}

/// Median, least and most.
type Summary = [f64; 3];

impl Measured {
    fn summary(&self) -> Option<Summary> {
        let mut times = self.times.clone().ok()?;
        times.sort_by(f64::total_cmp);
        Some([times[times.len() / 2], *times.first()?, *times.last()?])
    }

    /// As fields of a JSON object, beside the first of all variants.
    fn json(&self, first: &Measured) -> Value {
        let [median, least, most] = self.summary().map_or([None; 3], |times| times.map(Some));
        let ratio = self.summary().zip(first.summary()).map(|([median, ..], [first, ..])| median / first);
        json!({
            "variant": self.variant, "us_per_step": median, "min": least, "max": most, "ratio": ratio,
            "error": self.times.as_ref().err()
        })
    }

    /// For a person.
    fn text(&self, first: &Measured) -> String {
        match (&self.times, self.summary(), first.summary()) {
            (Err(reason), ..) => reason.clone(),
            (_, Some([median, least, most]), Some([first, ..])) => {
                format!("{median:10.2} µs ({least:.2} to {most:.2})  x {:.2}", median / first)
            }
            (_, Some([median, ..]), None) => format!("{median:10.2} µs"),
            (_, None, _) => "nothing measured".into(),
        }
    }
}

/// All variants, an epoch each in turn; the first round is not counted. `epoch` gets the round and a variant, and answers how many steps it
/// has had; one that fails is left out from there on, with its reason in the place of times.
pub(crate) fn alternate<V>(
    rounds: u32,
    variants: Vec<(String, Result<V>)>,
    mut epoch: impl FnMut(u32, &mut V) -> Result<usize>,
) -> Vec<Measured> {
    let (mut runners, mut measured) = (Vec::new(), Vec::new());
    for (variant, opened) in variants {
        let times = opened.as_ref().map(|_| Vec::new()).map_err(|error| format!("{error:#}"));
        measured.push(Measured { variant, times });
        runners.push(opened.ok());
    }
    for round in 0..=rounds {
        for (runner, measured) in runners.iter_mut().zip(&mut measured) {
            let (Some(variant), Ok(times)) = (&mut *runner, &mut measured.times) else { continue };
            let started = Instant::now();
            match epoch(round, variant) {
                Ok(steps) if round > 0 => times.push(started.elapsed().as_secs_f64() / steps as f64 * 1e6),
                Ok(_) => {}
                Err(error) => (*runner, measured.times) = (None, Err(format!("{error:#}"))),
            }
        }
    }
    measured
}

/// Prints all variants of a job, each after the columns that name the job: key, value and width. `width` is that of a variant's name.
pub(crate) fn report(json: bool, columns: &[(&str, &str, usize)], width: usize, measured: &[Measured]) {
    for found in measured {
        if json {
            let mut line = found.json(&measured[0]);
            columns.iter().for_each(|&(key, value, _)| line[key] = value.into());
            println!("{line}");
        } else {
            columns.iter().for_each(|(_, value, width)| print!("{value:width$} "));
            println!("{:width$} {}", found.variant, found.text(&measured[0]));
        }
    }
}

/// How a bench of this name ends.
pub(crate) fn end(name: &str, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
