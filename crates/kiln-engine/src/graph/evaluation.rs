//! Loss and hits on other samples than those of the training.

use super::feed::Resident;
use super::{Arenas, Batch, Graph, Purpose};
use crate::{Error, Inputs, Samples, Targets};

/// Rows a batch of an evaluation, or a part of a batch where those are fewer: its result does not depend on the training's batch.
const BATCH: usize = 2048;
/// Samples are kept where they and their results take such a part of the free memory at most.
const KEPT_PART: usize = 8;
/// Bytes of a row's place in the order, its loss and its hit.
const RESULT_BYTES: usize = 12;

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
    /// Makes ready for evaluations of these samples, which epochs may run beside: loads their kernels, and keeps the samples on the device
    /// where they are few for it, in the place of those that it has kept.
    pub(super) fn keep_samples(&mut self, samples: Option<&Samples<'_>>) -> Result<(), Error> {
        self.evaluation.kept = None;
        let Some(samples) = samples else { return Ok(()) };
        let free = self.gpu.stream.context().mem_get_info().map_or(0, |(free, _)| free);
        let bytes = samples.len().saturating_mul(samples.row_bytes() + RESULT_BYTES);
        match self.prepare_evaluation(samples, bytes <= free / KEPT_PART) {
            Err(Error::DeviceMemory { .. }) => {
                self.forget_evaluation();
                Ok(())
            }
            done => done,
        }
    }

    fn prepare_evaluation(&mut self, samples: &Samples<'_>, keep: bool) -> Result<(), Error> {
        let batch = self.evaluation_batch(samples);
        let rows = if keep { samples.len() } else { batch };
        let there = Resident::new(&self.gpu, &samples.rows(0..rows))?;
        let mut arenas = match self.evaluation.arenas.take() {
            Some(arenas) => arenas,
            None => Arenas::new(&self.gpu, &self.net.widths, self.copied, Purpose::Evaluation)?,
        };
        arenas.reserve(&self.gpu, batch, rows, rows.div_ceil(batch))?;
        self.gpu.rehearse(|| {
            [batch, samples.len() % batch]
                .into_iter()
                .filter(|&rows| rows > 0)
                .try_for_each(|rows| self.submit_evaluation(&there, &arenas, rows, batch))
        })?;
        self.evaluation.arenas = Some(arenas);
        match keep {
            true => self.evaluation.kept = Some(Kept { at: place(samples), samples: there }),
            false => self.evaluation.passing = Some(there),
        }
        Ok(())
    }

    /// Rows of a batch of an evaluation.
    fn evaluation_batch(&self, samples: &Samples<'_>) -> usize {
        BATCH.min(self.part_rows() as usize).min(samples.len())
    }

    /// Gives back the memory of evaluations; whether they had any.
    pub(super) fn forget_evaluation(&mut self) -> bool {
        let Evaluator { arenas, passing, kept } = std::mem::take(&mut self.evaluation);
        arenas.is_some() || passing.is_some() || kept.is_some()
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
        let batch = self.evaluation_batch(samples);
        let arenas = match &mut evaluator.arenas {
            Some(arenas) => arenas,
            none => none.insert(Arenas::new(&self.gpu, &self.net.widths, self.copied, Purpose::Evaluation)?),
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
        self.submit_evaluation(samples, arenas, rows, batch)?;
        let loss = self.step_sums(arenas, batches)?.iter().sum();
        let mut hits = vec![0; batches];
        arenas.step_hits.download(&self.gpu, &mut hits)?;
        Ok((loss, hits.into_iter().map(u64::from).sum()))
    }

    /// Every launch of an evaluation.
    fn submit_evaluation(
        &self,
        samples: &Resident,
        arenas: &Arenas,
        rows: usize,
        batch: usize,
    ) -> Result<(), Error> {
        for (slot, first) in (0..rows).step_by(batch).enumerate() {
            let alone = Batch::alone((rows - first).min(batch), batch, 0);
            self.forward(samples.feed(), arenas, Batch { slot: slot as u32, ..alone })?;
        }
        self.submit_sums(arenas, rows, batch)
    }
}

#[cfg(test)]
mod tests {
    use kiln_tests::on_device;

    use super::*;
    use crate::engine::Engine;
    use crate::{GraphOptions, Job, Loss, Mlp, Schedule, Sgd};

    const WIDTH: usize = 50;

    /// Samples stay on the device if they are few for it, and give the same; training has their memory if it needs it.
    #[test]
    fn samples_are_kept_where_there_is_room() {
        on_device!(&[("KILN_SIM_MEMORY", "1m")]);
        if !crate::inspect(0).unwrap().is_simulator() {
            return; // whose memory is given byte by byte, and given back at once
        }
        let pixels: Vec<u8> = (0..3000 * WIDTH).map(|at| (at * at % 251) as u8).collect();
        let labels: Vec<u8> = (0..3000).map(|row| (row % 3) as u8).collect();
        let samples = |rows: usize| {
            Samples::pixels(&pixels[..rows * WIDTH], WIDTH, Targets::Labels(&labels[..rows])).unwrap()
        };
        let job = Job {
            model: Mlp::new(&[WIDTH, 20, 3], 0).unwrap(),
            loss: Loss::CrossEntropy,
            optimizer: Sgd::default().into(),
            schedule: Schedule::default(),
            train: samples(2600),
        };
        let mut graph = Graph::new(job, GraphOptions::default()).unwrap();
        let (few, many) = (samples(1000), samples(3000));
        // 1000 rows: 51 KB of samples, 92 KB of activations, 12 KB of order, losses and hits; and no 80 KB of gradients.
        let free = |graph: &Graph<'_>| graph.gpu.stream.context().mem_get_info().unwrap().0;
        let before = free(&graph);
        let expected = graph.evaluate(&few).unwrap();
        let taken = before - free(&graph);
        assert!((155_000..175_000).contains(&taken), "{taken} bytes");
        graph.evaluation = Evaluator::default();

        graph.keep(Some(&few)).unwrap();
        assert!(graph.evaluation.kept.is_some());
        assert_eq!(graph.evaluate(&few).unwrap(), expected);
        assert!(graph.evaluation.passing.is_none(), "nothing was sent again");
        graph.evaluate(&samples(999)).unwrap();
        assert!(graph.evaluation.passing.is_some(), "others are not those");

        // 2600 rows of 20 and 3 outputs and their gradients, and an order: 478 KB. Those kept are 51 KB, what else evaluations have 104 KB.
        graph.evaluation.passing = None;
        let order: Vec<u32> = (0..2600).collect();
        let filler = crate::gpu::Buffer::<u8>::new(&graph.gpu, "less room", {
            let (free, _) = graph.gpu.stream.context().mem_get_info().unwrap();
            free - 380_000
        });
        graph.epoch(&order, 2600, &mut |_| ()).unwrap();
        let evaluation = &graph.evaluation;
        assert!(evaluation.kept.is_none() && evaluation.arenas.is_none(), "training came first");
        drop(filler);
        assert!(graph.evaluate(&few).unwrap().accuracy.is_some());

        graph.keep(Some(&many)).unwrap();
        assert!(graph.evaluation.kept.is_none(), "more than an eighth of what is free");
    }
}
