//! A tiny job on a GPU and on the host, compared.

use crate::{
    Error, GraphOptions, Job, Loss, Mlp, Precision, ResidentOptions, Samples, Schedule, Sgd, Targets, Trainer,
};

/// What a self-test came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelfTest {
    /// Steps that were trained on each side.
    pub steps: usize,
    /// Largest difference between a loss on the GPU and the same on the host, relative where the loss is above 1. NaN where a
    /// loss is.
    pub difference: f64,
}

impl SelfTest {
    /// What the difference may be: the golden trajectories' tolerance for losses in float32.
    pub const TOLERANCE: f64 = 1e-5;

    /// Whether the difference is within the tolerance. NaN is not.
    pub fn passes(&self) -> bool {
        self.difference <= Self::TOLERANCE
    }
}

/// Odd widths; 18 steps an epoch, the last of them smaller: replays of many captured steps, of one, and a tail.
const LAYERS: [usize; 4] = [37, 19, 11, 5];
const SAMPLES: usize = 70;
const BATCH: usize = 4;
const EPOCHS: usize = 3;

/// Trains a job of a second or less on a GPU and on the host, and compares the losses.
///
/// # Errors
/// As [`Trainer::graph`], and what fails while it trains.
pub fn self_test(options: &GraphOptions) -> Result<SelfTest, Error> {
    compare(&LAYERS, |job| Trainer::graph(job, options))
}

/// The same on the resident engine, with one hidden layer.
///
/// # Errors
/// As [`Trainer::resident`], and what fails while it trains.
pub fn self_test_resident(device: usize) -> Result<SelfTest, Error> {
    let options = ResidentOptions {
        device,
        precision: Precision::F32,
        batch: BATCH,
        team: None,
        blocks: None,
        epochs: None,
    };
    compare(&[LAYERS[0], LAYERS[1], LAYERS[3]], |job| Trainer::resident(job, &options))
}

fn compare(
    layers: &[usize],
    on_gpu: impl for<'d> FnOnce(Job<'d>) -> Result<Trainer<'d>, Error>,
) -> Result<SelfTest, Error> {
    let pixels: Vec<u8> = (0..SAMPLES * LAYERS[0]).map(|at| (at * at % 251) as u8).collect();
    let labels: Vec<u8> = (0..SAMPLES).map(|at| (at % LAYERS[3]) as u8).collect();
    let train = Samples::pixels(&pixels, LAYERS[0], Targets::Labels(&labels))?;
    let optimizer = Sgd { lr: 0.05, momentum: 0.9, ..Sgd::default() };
    let (optimizer, schedule) = (optimizer.into(), Schedule::default());
    let job = Job { model: Mlp::new(layers, 7)?, loss: Loss::CrossEntropy, optimizer, schedule, train };
    let (gpu, steps) = losses(on_gpu(job.clone())?, &train)?;
    let (host, _) = losses(Trainer::host(job, 1)?, &train)?;
    Ok(SelfTest { steps, difference: worst(&gpu, &host) })
}

/// Losses of each epoch and of an evaluation after it, and the steps that were trained.
fn losses(mut trainer: Trainer<'_>, samples: &Samples<'_>) -> Result<(Vec<f64>, usize), Error> {
    let (mut losses, mut steps) = (Vec::new(), 0);
    for epoch in 0..EPOCHS {
        // 13 and the number of samples have no common divisor: every sample once, in an order of the epoch's own.
        let order: Vec<u32> = (0..SAMPLES).map(|at| ((at * 13 + epoch) % SAMPLES) as u32).collect();
        let trained = trainer.epoch(&order, BATCH)?;
        losses.extend([trained.loss, trainer.evaluate(samples)?.loss]);
        steps += trained.steps;
    }
    Ok((losses, steps))
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
    // Not `max`, which would drop a NaN, and none may come after one.
    differences.fold(0.0, |worst, next| if worst.is_nan() || next <= worst { worst } else { next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_tests::on_device;

    #[test]
    fn a_device_that_computes_right_passes() {
        on_device!();
        let found = self_test(&GraphOptions::default()).unwrap();
        assert!(found.passes() && found.steps == 54, "{found:?}");
        let found = self_test_resident(0).unwrap();
        assert!(found.passes() && found.steps == 54, "{found:?}");
    }

    #[test]
    fn what_is_off_or_not_a_number_does_not_pass() {
        let test = |found: &[f64]| SelfTest { steps: 1, difference: worst(found, &[0.5, 2.0]) }.passes();
        assert!(test(&[0.5, 2.0]) && test(&[0.500_009, 2.000_019]));
        assert!(!test(&[0.500_011, 2.0]) && !test(&[0.5, 2.000_021]));
        assert!(!test(&[f64::NAN, 2.0]) && !test(&[0.5, f64::NAN]) && !test(&[f64::INFINITY, 2.0]));
    }
}
