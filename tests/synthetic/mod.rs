//! Small data sets of every form, and jobs on them.

use kiln_engine::{Job, Loss, Mlp, Samples, Schedule, Sgd, Targets};

pub(crate) const SAMPLES: usize = 301;
pub(crate) const WIDTH: usize = 29;
pub(crate) const CLASSES: usize = 7;

/// Inputs and targets in all forms.
pub(crate) struct Data {
    pub(crate) pixels: Vec<u8>,
    pub(crate) floats: Vec<f32>,
    pub(crate) labels: Vec<u8>,
    pub(crate) values: Vec<f32>,
}

/// Numbers below 256.
pub(crate) fn noise(mut state: u32) -> impl FnMut() -> u32 {
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 24
    }
}

impl Data {
    /// Classes that can be told apart: each lights pixels of its own, over noise.
    pub(crate) fn new() -> Self {
        let mut noise = noise(9);
        let labels: Vec<u8> = (0..SAMPLES).map(|_| (noise() as usize % CLASSES) as u8).collect();
        let pixel = |at: usize| {
            let lit = at % WIDTH % CLASSES == usize::from(labels[at / WIDTH]);
            (noise() / 2 + if lit { 128 } else { 0 }) as u8
        };
        let pixels: Vec<u8> = (0..SAMPLES * WIDTH).map(pixel).collect();
        let floats = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
        let values = (0..SAMPLES * CLASSES).map(|_| noise() as f32 / 128.0 - 1.0).collect();
        Self { pixels, floats, labels, values }
    }

    /// A job of this form on a model of these layers.
    pub(crate) fn job(&self, form: Form, layers: &[usize]) -> Job<'_> {
        let (loss, targets) = match form {
            Form::FloatsToValues => (Loss::MeanSquaredError, Targets::Values(&self.values)),
            Form::PixelsToOneHot => (Loss::MeanSquaredError, Targets::Labels(&self.labels)),
            _ => (Loss::CrossEntropy, Targets::Labels(&self.labels)),
        };
        let train = match form {
            Form::Pixels | Form::PixelsToOneHot => Samples::pixels(&self.pixels, WIDTH, targets),
            Form::Floats | Form::FloatsToValues => Samples::floats(&self.floats, WIDTH, targets),
        };
        let optimizer = Sgd { lr: 0.05, momentum: 0.9, ..Sgd::default() }.into();
        Job {
            model: Mlp::new(layers, 3).unwrap(),
            loss,
            optimizer,
            schedule: Schedule::default(),
            train: train.unwrap(),
        }
    }
}

/// Inputs and targets of a job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form {
    Pixels,
    Floats,
    PixelsToOneHot,
    FloatsToValues,
}

pub(crate) const FORMS: [Form; 4] = [Form::Pixels, Form::Floats, Form::PixelsToOneHot, Form::FloatsToValues];

/// An order of the samples for each epoch.
pub(crate) fn order(epoch: usize) -> Vec<u32> {
    (0..SAMPLES).map(|at| ((at * 11 + epoch * 5) % SAMPLES) as u32).collect()
}
