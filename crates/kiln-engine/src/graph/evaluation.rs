//! Loss and hits on other samples than those of the training.

use super::feed::Resident;
use super::{Arenas, Batch, Graph, Purpose};
use crate::{Error, Inputs, Samples, Targets};

/// Rows a batch of an evaluation, or a part of a batch where those are fewer: its result does not depend on the training's batch.
const BATCH: usize = 2048;
/// Samples are kept where they take such a part of the free memory at most.
const KEPT_PART: usize = 8;

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
    /// Keeps samples on the device, where they are few for it, in the place of those that it has kept.
    pub(super) fn keep_samples(&mut self, samples: Option<&Samples<'_>>) -> Result<(), Error> {
        self.evaluation.kept = None;
        let Some(samples) = samples else { return Ok(()) };
        let free = self.gpu.stream.context().mem_get_info().map_or(0, |(free, _)| free);
        if samples.len().saturating_mul(samples.row_bytes()) > free / KEPT_PART {
            return Ok(());
        }
        self.evaluation.kept = match Resident::new(&self.gpu, samples) {
            Ok(resident) => Some(Kept { at: place(samples), samples: resident }),
            Err(Error::DeviceMemory { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Gives back the memory of samples that are kept; whether there were any.
    pub(super) fn forget_samples(&mut self) -> bool {
        self.evaluation.kept.take().is_some()
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

        // 2600 rows of 20 and 3 outputs and their gradients, and an order: 478 KB. Those kept are 51 KB.
        graph.evaluation.passing = None;
        let order: Vec<u32> = (0..2600).collect();
        let filler = crate::gpu::Buffer::<u8>::new(&graph.gpu, "less room", {
            let (free, _) = graph.gpu.stream.context().mem_get_info().unwrap();
            free - 460_000
        });
        graph.epoch(&order, 2600, &mut |_| ()).unwrap();
        assert!(graph.evaluation.kept.is_none(), "training came first");
        drop(filler);
        assert!(graph.evaluate(&few).unwrap().accuracy.is_some());

        graph.keep(Some(&many)).unwrap();
        assert!(graph.evaluation.kept.is_none(), "more than an eighth of what is free");
    }
}
