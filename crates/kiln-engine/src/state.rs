//! All that training goes on from.

use crate::{Error, Mlp, Optimizer, Tensor};

/// More steps than any training has: float64 counts as far.
const STEPS_MAX: u64 = 1 << 53;

/// Parameters, what the optimizer keeps of each, and how many steps they have behind them.
///
/// A trainer that takes it over ([`crate::Trainer::restore`]) goes on as the one that gave it ([`crate::Trainer::state`]) would have:
/// with the same job and the same order of samples to the same bits, on the same engine with the same options.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingState {
    /// The parameters.
    pub model: Mlp,
    /// What the optimizer keeps, in the order of [`Optimizer::moments`]: each with names, shapes and order of [`Mlp::tensors`].
    pub moments: Vec<Vec<Tensor>>,
    /// Steps that are done, over all epochs.
    pub steps: u64,
}

impl TrainingState {
    /// Checks that training of these layers by this optimizer can go on from it.
    pub(crate) fn check_for(&self, layers: &[usize], optimizer: &Optimizer) -> Result<(), Error> {
        let (found, names) = (self.model.layers(), optimizer.moments());
        if found != layers {
            return Err(wrong("layers", format!("{layers:?}"), format!("{found:?}")));
        }
        if self.steps > STEPS_MAX {
            return Err(wrong("steps", format!("at most {STEPS_MAX}"), self.steps.to_string()));
        }
        if self.moments.len() != names.len() {
            let expected = format!("{} for {optimizer}", names.len());
            return Err(wrong("moments of the optimizer", expected, self.moments.len().to_string()));
        }
        names.iter().zip(&self.moments).try_for_each(|(name, tensors)| self.check_moment(name, tensors))
    }

    fn check_moment(&self, name: &str, tensors: &[Tensor]) -> Result<(), Error> {
        let parameters = self.model.tensors();
        if tensors.len() != parameters.len() {
            let expected = format!("{} tensors", parameters.len());
            return Err(wrong(name, expected, tensors.len().to_string()));
        }
        for (tensor, parameter) in tensors.iter().zip(parameters) {
            let what = || format!("{name} of {}", parameter.name);
            if tensor.name != parameter.name {
                return Err(wrong(what(), "this tensor".to_owned(), format!("that of {}", tensor.name)));
            }
            if tensor.shape != parameter.shape || tensor.data.len() != parameter.data.len() {
                let found = format!("{:?} with {} values", tensor.shape, tensor.data.len());
                return Err(wrong(what(), format!("the shape {:?}", parameter.shape), found));
            }
            // Infinite it may be: the square of a gradient, where parameters still are not.
            if let Some(index) = tensor.data.iter().position(|value| value.is_nan()) {
                return Err(wrong(what(), "numbers".to_owned(), format!("NaN at index {index}")));
            }
        }
        Ok(())
    }
}

fn wrong(what: impl Into<String>, expected: String, found: String) -> Error {
    Error::State { what: what.into(), expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdamW, Sgd};

    #[test]
    fn a_state_of_another_job_is_refused() {
        let model = Mlp::new(&[3, 2], 0).unwrap();
        let momentum = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.into();
        let fine = TrainingState { moments: vec![model.tensors().to_vec()], model, steps: 7 };
        assert_eq!(fine.check_for(&[3, 2], &momentum), Ok(()));
        let error = |state: &TrainingState, layers: &[usize], optimizer: &Optimizer| {
            state.check_for(layers, optimizer).unwrap_err().to_string()
        };
        assert_eq!(
            error(&fine, &[3, 2, 2], &momentum),
            "training state: layers: expected [3, 2, 2], found [3, 2]"
        );
        let found = error(&fine, &[3, 2], &AdamW::default().into());
        assert!(found.contains("moments of the optimizer: expected 2 for AdamW"), "{found}");
        let found = error(&fine, &[3, 2], &Sgd::default().into());
        assert!(found.contains("expected 0 for SGD lr 0, found 1"), "{found}");

        type Change = fn(&mut Vec<Tensor>);
        let changed = |change: Change| {
            let mut state = fine.clone();
            change(&mut state.moments[0]);
            error(&state, &[3, 2], &momentum)
        };
        let cases: [(Change, &str); 5] = [
            (|v| drop(v.pop()), "momentum_buffer: expected 2 tensors, found 1"),
            (|v| v.swap(0, 1), "momentum_buffer of fc1.weight: expected this tensor, found that of fc1.bias"),
            (|v| v[0].shape = vec![3, 2], "expected the shape [2, 3], found [3, 2] with 6 values"),
            (|v| v[1].data.truncate(1), "of fc1.bias: expected the shape [2], found [2] with 1 values"),
            (|v| v[0].data[4] = f32::NAN, "of fc1.weight: expected numbers, found NaN at index 4"),
        ];
        for (change, expected) in cases {
            let found = changed(change);
            assert!(found.contains(expected), "{found}");
        }
        let absurd = TrainingState { steps: u64::MAX, ..fine.clone() };
        let found = error(&absurd, &[3, 2], &momentum);
        assert!(found.contains("steps: expected at most 9007199254740992, found"), "{found}");
        let mut infinite = fine.clone();
        infinite.moments[0][0].data[0] = f32::INFINITY;
        assert_eq!(infinite.check_for(&[3, 2], &momentum), Ok(()));
    }
}
