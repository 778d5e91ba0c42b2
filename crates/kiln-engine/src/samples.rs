//! Views of the data that a model trains on.

use std::ops::Range;

use crate::{Error, Loss};

/// Input rows, one a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Inputs<'d> {
    /// (samples, width) pixels 0..=255, which stand for `pixel / 255`. Kept as bytes until a batch is gathered.
    Pixels(&'d [u8]),
    /// (samples, width) finite values.
    Floats(&'d [f32]),
}

/// What the model should answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Targets<'d> {
    /// (samples) classes from 0. With mean squared error they stand for one-hot rows.
    Labels(&'d [u8]),
    /// (samples, outputs) finite values, for mean squared error.
    Values(&'d [f32]),
}

/// Inputs and targets of one count, checked. A copy is two slices; nothing is owned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Samples<'d> {
    inputs: Inputs<'d>,
    targets: Targets<'d>,
    width: usize,
    len: usize,
}

impl<'d> Samples<'d> {
    /// Samples of `width` pixels each.
    ///
    /// # Errors
    /// [`Error::SampleCount`] where the lengths do not fit, [`Error::SampleValue`] for a target that is not finite.
    pub fn pixels(pixels: &'d [u8], width: usize, targets: Targets<'d>) -> Result<Self, Error> {
        Self::new(Inputs::Pixels(pixels), pixels.len(), width, targets)
    }

    /// Samples of `width` float values each.
    ///
    /// # Errors
    /// [`Error::SampleCount`] where the lengths do not fit, [`Error::SampleValue`] for a value that is not finite.
    pub fn floats(values: &'d [f32], width: usize, targets: Targets<'d>) -> Result<Self, Error> {
        let samples = Self::new(Inputs::Floats(values), values.len(), width, targets)?;
        all_finite("inputs", values, width)?;
        Ok(samples)
    }

    fn new(inputs: Inputs<'d>, values: usize, width: usize, targets: Targets<'d>) -> Result<Self, Error> {
        if width == 0 || !values.is_multiple_of(width) {
            let expected = format!("a multiple of the width, {width}, that is at least 1,");
            return Err(Error::SampleCount { what: "inputs", expected, found: values });
        }
        let len = values / width;
        // More could not be named by the 32-bit indices of an order.
        if len > u32::MAX as usize {
            let expected = format!("at most {} rows of {width}", u32::MAX);
            return Err(Error::SampleCount { what: "inputs", expected, found: values });
        }
        match targets {
            Targets::Labels(labels) if labels.len() != len => {
                Err(Error::SampleCount { what: "labels", expected: len.to_string(), found: labels.len() })
            }
            Targets::Values(values) if len == 0 || !values.len().is_multiple_of(len) || values.is_empty() => {
                let expected = format!("a multiple of the samples, {len},");
                Err(Error::SampleCount { what: "targets", expected, found: values.len() })
            }
            Targets::Values(values) => {
                all_finite("targets", values, values.len() / len)?;
                Ok(Self { inputs, targets, width, len })
            }
            Targets::Labels(_) => Ok(Self { inputs, targets, width, len }),
        }
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no sample at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Values an input row, K.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes of a sample, inputs and targets.
    pub(crate) fn row_bytes(&self) -> usize {
        let inputs = match self.inputs {
            Inputs::Pixels(_) => self.width,
            Inputs::Floats(_) => self.width * size_of::<f32>(),
        };
        let targets = match self.targets {
            Targets::Labels(_) => 1,
            Targets::Values(values) => values.len() / self.len * size_of::<f32>(),
        };
        inputs + targets
    }

    /// The input rows.
    pub fn inputs(&self) -> Inputs<'d> {
        self.inputs
    }

    /// The targets.
    pub fn targets(&self) -> Targets<'d> {
        self.targets
    }

    /// The first `len` samples, or all where there are fewer.
    pub fn first(&self, len: usize) -> Self {
        self.rows(0..len.min(self.len))
    }

    /// The samples of a range, which must lie within these.
    pub(crate) fn rows(&self, range: Range<usize>) -> Self {
        let part = |width: usize| range.start * width..range.end * width;
        let inputs = match self.inputs {
            Inputs::Pixels(pixels) => Inputs::Pixels(&pixels[part(self.width)]),
            Inputs::Floats(floats) => Inputs::Floats(&floats[part(self.width)]),
        };
        let targets = match self.targets {
            Targets::Labels(labels) => Targets::Labels(&labels[range.clone()]),
            Targets::Values(all) => Targets::Values(&all[part(all.len() / self.len)]),
        };
        Self { inputs, targets, width: self.width, len: range.len() }
    }

    /// Checks that a model of these layers and a loss can be trained or evaluated on these samples.
    pub(crate) fn check_for(&self, layers: &[usize], loss: Loss) -> Result<(), Error> {
        let (inputs, outputs) = (layers[0], layers[layers.len() - 1]);
        if self.is_empty() {
            return Err(Error::Empty { what: "samples" });
        }
        if self.width != inputs {
            return Err(Error::SampleWidth { what: "values an input", expected: inputs, found: self.width });
        }
        match self.targets {
            Targets::Labels(labels) => match labels.iter().position(|&l| usize::from(l) >= outputs) {
                Some(sample) => Err(Error::Label { sample, classes: outputs, found: labels[sample] }),
                None => Ok(()),
            },
            Targets::Values(_) if loss == Loss::CrossEntropy => Err(Error::TargetsForLoss),
            Targets::Values(values) if values.len() / self.len != outputs => {
                let found = values.len() / self.len;
                Err(Error::SampleWidth { what: "values a target", expected: outputs, found })
            }
            Targets::Values(_) => Ok(()),
        }
    }
}

fn all_finite(what: &'static str, values: &[f32], width: usize) -> Result<(), Error> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(Error::SampleValue { what, sample: i / width, found: values[i] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let labels = [0u8, 1];
        assert!(Samples::pixels(&[0; 6], 3, Targets::Labels(&labels)).is_ok());
        for (pixels, width) in [(&[0u8; 6][..], 0), (&[0; 7], 3), (&[0; 9], 3), (&[], 3)] {
            let found = Samples::pixels(pixels, width, Targets::Labels(&labels));
            assert!(matches!(found, Err(Error::SampleCount { .. })), "{found:?}");
        }
        for values in [&[0.0f32; 3][..], &[]] {
            let found = Samples::pixels(&[0; 6], 3, Targets::Values(values));
            assert!(matches!(found, Err(Error::SampleCount { what: "targets", .. })), "{found:?}");
        }
    }

    #[test]
    fn values_that_are_not_finite_are_found() {
        let labels = [0u8, 1];
        let found = Samples::floats(&[0.0, 1.0, 2.0, f32::NAN], 2, Targets::Labels(&labels));
        assert!(matches!(found, Err(Error::SampleValue { what: "inputs", sample: 1, .. })), "{found:?}");
        let found = Samples::floats(&[0.0; 4], 2, Targets::Values(&[f32::INFINITY, 0.0]));
        assert!(matches!(found, Err(Error::SampleValue { what: "targets", sample: 0, .. })), "{found:?}");
    }

    #[test]
    fn a_prefix_keeps_its_targets() {
        let samples =
            Samples::floats(&[1.0, 2.0, 3.0], 1, Targets::Values(&[1., 2., 3., 4., 5., 6.])).unwrap();
        let two = samples.first(2);
        assert_eq!((two.len(), two.targets()), (2, Targets::Values(&[1., 2., 3., 4.])));
        assert_eq!(samples.first(9), samples);
    }
}
