//! Loss and hits on other samples than those of the training.

use super::feed::Resident;
use super::{Arenas, Batch, Graph};
use crate::{Error, Inputs, Samples, Targets};

/// Rows a batch of an evaluation: fixed, so that its result does not depend on the training's batch.
const BATCH: usize = 2048;

/// What evaluations need on the device.
#[derive(Default)]
pub(super) struct Evaluator {
    arenas: Option<Arenas>,
    /// A batch of samples, replaced by the next.
    passing: Option<Resident>,
    kept: Option<Kept>,
}

/// Samples that stay on the device, and where they lie on the host.
struct Kept {
    at: [(usize, usize); 2],
    samples: Resident,
}

/// Addresses and bytes of inputs and targets: the same for the same samples alone.
fn place(samples: &Samples<'_>) -> [(usize, usize); 2] {
    fn of<T>(values: &[T]) -> (usize, usize) {
        (values.as_ptr() as usize, size_of_val(values))
    }
    let inputs = match samples.inputs() {
        Inputs::Pixels(pixels) => of(pixels),
        Inputs::Floats(floats) => of(floats),
    };
    let targets = match samples.targets() {
        Targets::Labels(labels) => of(labels),
        Targets::Values(values) => of(values),
    };
    [inputs, targets]
}

impl Graph<'_> {
    /// Keeps samples on the device, where it has room for them, in the place of those that it has kept.
    pub(super) fn keep_samples(&mut self, samples: Option<&Samples<'_>>) -> Result<(), Error> {
        self.evaluation.kept = None;
        let Some(samples) = samples else { return Ok(()) };
        self.evaluation.kept = match Resident::new(&self.gpu, samples) {
            Ok(resident) => Some(Kept { at: place(samples), samples: resident }),
            Err(Error::DeviceMemory { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// The sum of the losses of all samples, and how many are hits.
    pub(super) fn evaluate_samples(&mut self, samples: &Samples<'_>) -> Result<(f64, u64), Error> {
        // Taken out, so that what is in it can be used beside the engine.
        let mut evaluator = std::mem::take(&mut self.evaluation);
        let found = self.evaluate_on(&mut evaluator, samples);
        self.evaluation = evaluator;
        found
    }

    fn evaluate_on(&self, evaluator: &mut Evaluator, samples: &Samples<'_>) -> Result<(f64, u64), Error> {
        let batch = BATCH.min(self.part_rows() as usize).min(samples.len());
        let arenas = match &mut evaluator.arenas {
            Some(arenas) => arenas,
            none => none.insert(Arenas::new(&self.gpu, &self.net.widths, self.copied)?),
        };
        if let Some(kept) = evaluator.kept.as_ref().filter(|kept| kept.at == place(samples)) {
            return self.evaluate_rows(&kept.samples, arenas, samples.len(), batch);
        }
        let (mut loss, mut hits) = (0.0, 0);
        for first in (0..samples.len()).step_by(batch) {
            let part = samples.rows(first..samples.len().min(first + batch));
            let there = match evaluator.passing.take() {
                Some(mut passing) => passing.load(&self.gpu, &part)?.then_some(passing),
                None => None,
            };
            let passing = match there {
                Some(passing) => passing,
                None => Resident::new(&self.gpu, &part)?,
            };
            let found = self.evaluate_rows(&passing, arenas, part.len(), batch)?;
            evaluator.passing = Some(passing);
            (loss, hits) = (loss + found.0, hits + found.1);
        }
        Ok((loss, hits))
    }

    /// The first `rows` samples of those on the device, batch by batch; one read-back at the end.
    fn evaluate_rows(
        &self,
        samples: &Resident,
        arenas: &mut Arenas,
        rows: usize,
        batch: usize,
    ) -> Result<(f64, u64), Error> {
        let (order, batches): (Vec<u32>, _) = ((0..rows as u32).collect(), rows.div_ceil(batch));
        arenas.reserve(&self.gpu, batch, rows, batches)?;
        arenas.begin(&self.gpu, &order, &[])?;
        for slot in 0..batches {
            let of_batch = (rows - slot * batch).min(batch);
            let alone = Batch::alone(of_batch, batch, 0);
            self.forward(samples.feed(), arenas, Batch { slot: slot as u32, ..alone })?;
        }
        let loss = self.sums(arenas, rows, batch)?.iter().sum();
        let mut hits = vec![0; batches];
        arenas.step_hits.download(&self.gpu, &mut hits)?;
        Ok((loss, hits.into_iter().map(u64::from).sum()))
    }
}
