//! The `graph` engine: fused kernels a layer, a training step captured in a CUDA graph.
//!
//! [`Graph::pass`] is the order of a training step. Data, parameters and activations live on the device from the start;
//! an epoch sends its order of samples and its learning rates, replays captured steps without waiting for any of them, and
//! reads back one loss a step at its end. A replayed step allocates nothing, on the host or on the device.

mod arenas;
mod capture;
mod copies;
mod evaluation;
mod feed;
mod net;
mod steps;
mod streamed;
#[cfg(test)]
mod tests;

use crate::engine::Engine;
use crate::gpu::copies::Format;
use crate::gpu::{
    Buffer, Dims, Gpu, Head, LayerGradient, Region, Scalars, Sink, Source, Wanted, adamw, advance,
    batch_sums, fault, head, input_gradient, linear, loss, sgd, weight_gradients,
};
use crate::nvtx::range;
use crate::{
    Choices, Epoch, Error, Evaluation, Gradients, Job, Loss, Mlp, Optimizer, Precision, Progress, Samples,
    Schedule, Targets, Tensor, TrainingState,
};
use arenas::{Arenas, Purpose};
use capture::Captured;
pub(crate) use feed::is_of_samples;
use feed::{Data, Feed};
use net::{Net, adamw_options};
pub(crate) use net::{scalars, sgd_options};
pub use steps::StepRange;
use steps::Steps;

/// How a step reaches the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Submission {
    /// Captured once in a CUDA graph, which is replayed. The fastest.
    #[default]
    Captured,
    /// Kernel by kernel, each step anew. Same results, bit for bit.
    Direct,
    /// Kernel by kernel, waiting for each, so that an error names its kernel. For debugging.
    Synchronous,
}

/// Where the training samples are while a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// On the device if they fit, else streamed.
    #[default]
    Auto,
    /// On the device.
    Resident,
    /// On the host, copied to the device chunk by chunk in the order of the epoch. Same results, bit for bit.
    Streamed,
}

/// What a [`crate::Trainer::graph`] runs on and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GraphOptions {
    /// Number of the device.
    pub device: usize,
    /// Arithmetic of the matrix products.
    pub precision: Precision,
    /// How steps reach the device.
    pub submission: Submission,
    /// Where the training samples are.
    pub placement: Placement,
    /// Most rows of a chunk of streamed samples, of which it holds whole batches; `None` for as many as 64 MiB hold.
    pub chunk_rows: Option<usize>,
    /// Most rows that are computed at once. A larger batch is computed in parts whose gradients are added before the one update: less
    /// memory for activations, and the same results but for rounding. `None` for whole batches.
    pub micro_batch: Option<usize>,
    /// Steps that a profiler that has been told to wait for its start sees: all before is done when they begin, and they are
    /// done when it stops. Same results, bit for bit.
    pub profile: Option<StepRange>,
    /// By what it chooses among kernels.
    pub choices: Choices,
}

/// The engine: a device, a net on it, and the arenas of training and of evaluation.
pub(crate) struct Graph<'d> {
    // Declared first, and so dropped before the buffers whose addresses the captured launches hold.
    captured: Captured,
    net: Net,
    /// That of the copies that products read, if they read copies of their operands.
    copied: Option<Format>,
    train: Data<'d>,
    arenas: Arenas,
    evaluation: evaluation::Evaluator,
    loss: Loss,
    optimizer: Optimizer,
    schedule: Schedule,
    options: GraphOptions,
    steps: Steps,
    epochs: usize,
    /// Rows and rows a batch of the epochs whose kernels were last loaded.
    rehearsed: Option<(usize, usize)>,
    pub(crate) gpu: Gpu,
}

/// One batch of an epoch.
#[derive(Debug, Clone, Copy)]
struct Batch {
    /// Step among those that are captured together.
    slot: u32,
    /// Its first row: 0, unless it is a part of a batch.
    first: u32,
    /// Rows, B.
    rows: u32,
    /// Rows that its loss is the mean of: more than it has where it is a part.
    mean: u32,
    /// Rows from one batch of the epoch to the next.
    stride: u32,
    /// Which side its samples are on, where they are streamed.
    side: usize,
}

impl Batch {
    /// A batch that is alone in its launches.
    fn alone(rows: usize, stride: usize, side: usize) -> Self {
        let (rows, stride) = (rows as u32, stride as u32);
        Self { slot: 0, first: 0, rows, mean: rows, stride, side }
    }

    /// In parts of so many rows.
    fn parts(self, most: u32) -> impl Iterator<Item = Batch> {
        (0..self.rows).step_by(most as usize).map(move |at| Self {
            first: self.first + at,
            rows: (self.rows - at).min(most),
            ..self
        })
    }

    /// Of values a row of an epoch, those from its first row on: kernels count from the start of a batch.
    fn part_of<T>(self, values: Region<'_, T>) -> Region<'_, T> {
        values.from(self.first as usize)
    }
}

/// What becomes of the gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// They update the parameters.
    Update,
    /// They are stored.
    Store,
    /// They are added to those that are stored.
    Add,
}

impl<'d> Graph<'d> {
    /// Takes over a job that has been checked.
    pub(crate) fn new(job: Job<'d>, options: GraphOptions) -> Result<Self, Error> {
        let mut gpu = Gpu::open(options.device, options.precision)?;
        gpu.waits = options.submission == Submission::Synchronous;
        gpu.choices = options.choices;
        let Job { model, loss, optimizer, schedule, train } = job;
        if model.layers().iter().any(|&width| width > u32::MAX as usize) {
            return Err(Error::Layers { found: model.layers().to_vec() });
        }
        let copied =
            copies::pay(&gpu, model.layers(), options.precision).then(|| Format::of(options.precision));
        if let Some(format) = copied {
            gpu.add_for_wide_layers(format);
        }
        let net = Net::new(&gpu, model, &optimizer, copied)?;
        let train = Data::new(&gpu, train, options.placement)?;
        Ok(Self {
            captured: Captured::default(),
            arenas: Arenas::new(&gpu, &net.widths, copied, Purpose::Training)?,
            net,
            copied,
            train,
            evaluation: evaluation::Evaluator::default(),
            loss,
            optimizer,
            schedule,
            options,
            steps: Steps::new(options.profile),
            epochs: 0,
            rehearsed: None,
            gpu,
        })
    }

    /// The samples of a job whose [`Placement`] is on the device: inputs, and what the loss takes outputs against.
    pub(crate) fn samples(&self) -> (Source<'_>, Wanted<'_>) {
        let feed = self.train.feed(0);
        (feed.source, feed.wanted(self.loss))
    }

    /// The parameters that it evaluates, in one arena.
    pub(crate) fn parameters(&mut self) -> (&Gpu, &mut Buffer<f32>) {
        (&self.gpu, self.net.arenas().0)
    }

    /// The same, and the velocities if there are any.
    pub(crate) fn arenas(&mut self) -> (&Gpu, &mut Buffer<f32>, Option<&mut Buffer<f32>>) {
        let (parameters, velocities) = self.net.arenas();
        (&self.gpu, parameters, velocities)
    }

    /// Replaces the parameters by those of a model of the same layers.
    pub(crate) fn set_model(&mut self, model: &Mlp) -> Result<(), Error> {
        self.net.upload(&self.gpu, model)
    }

    /// Values of such an arena under their parameters' names.
    pub(crate) fn tensors(&self, arena: &Buffer<f32>) -> Result<Vec<Tensor>, Error> {
        Ok(self.net.fetch(&self.gpu, arena)?.into_tensors())
    }

    /// A training step: a pass over the batch, and the update. SGD's is in one with the gradients of the parameters; AdamW's, and
    /// SGD's where the batch comes in parts, is one launch over all parameters at the end.
    fn submit_step(&self, batch: Batch) -> Result<(), Error> {
        if matches!(self.optimizer, Optimizer::Sgd(_)) && batch.rows <= self.part_rows() {
            return self.pass(batch, Goal::Update);
        }
        self.submit_gradients(batch)?;
        self.update(batch)
    }

    /// Moves the counter of steps on.
    fn submit_advance(&self, steps: usize) -> Result<(), Error> {
        advance(&self.gpu, self.arenas.step.all(), steps as u32)
    }

    /// Stores the gradients of a batch, part by part.
    fn submit_gradients(&self, batch: Batch) -> Result<(), Error> {
        batch
            .parts(self.part_rows())
            .try_for_each(|part| self.pass(part, if part.first == 0 { Goal::Store } else { Goal::Add }))
    }

    /// The order of a step: forward to the loss and the gradient at the outputs, down through the gradients at the outputs of all
    /// layers, and last the gradients of their parameters, whose update those before must not see.
    fn pass(&self, batch: Batch, goal: Goal) -> Result<(), Error> {
        let feed = self.train.feed(batch.side);
        let mut layers = self.net.depth();
        if self.has_head(batch) {
            layers -= 1; // whose gradient at the inputs is made with the loss
            self.hidden(feed, &self.arenas, batch)?;
            self.head(feed, batch)?;
        } else {
            self.forward(feed, &self.arenas, batch)?;
        }
        if let Some(copies) = self.arenas.copies() {
            self.copy_gradient(copies, batch)?;
        }
        (1..layers).rev().try_for_each(|layer| self.input_gradient(layer, batch))?;
        self.weight_gradients(feed, batch, goal)
    }

    /// Steps of a large graph.
    fn captured_steps(&self) -> usize {
        self.options.choices.captured_steps.max(1)
    }

    /// The most rows that are computed at once.
    fn part_rows(&self) -> u32 {
        self.options.micro_batch.map_or(u32::MAX, |rows| rows.clamp(1, u32::MAX as usize) as u32)
    }

    /// Whether the last layer and the loss are one kernel.
    fn has_head(&self, batch: Batch) -> bool {
        let last = self.net.depth() - 1;
        self.copied.is_none() && last > 0 && Head::fits(&self.gpu, self.dims(last, batch))
    }

    /// From the gathered batch through all layers but the last.
    fn hidden(&self, feed: Feed<'_>, arenas: &Arenas, batch: Batch) -> Result<(), Error> {
        (0..self.net.depth() - 1).try_for_each(|layer| self.outputs(layer, feed, arenas, batch))
    }

    /// The last layer, the loss, the gradient at the outputs, and that at the layer below.
    fn head(&self, feed: Feed<'_>, batch: Batch) -> Result<(), Error> {
        let (arenas, last) = (&self.arenas, self.net.depth() - 1);
        let (w, b) = self.net.parameters(last);
        let (x, dz, dx) = (arenas.outputs[last - 1].all(), arenas.delta(last), arenas.delta(last - 1));
        let (layer, results) = (Head { x, w, b, dz, dx }, arenas.results(batch));
        let (wanted, at) = (feed.wanted(self.loss), arenas.position(batch));
        head(&self.gpu, &wanted, &at, &layer, &results, batch.mean, self.dims(last, batch))
    }

    /// From the gathered batch through all layers to loss, hits and the gradient at the outputs.
    fn forward(&self, feed: Feed<'_>, arenas: &Arenas, batch: Batch) -> Result<(), Error> {
        if let Some(copies) = arenas.copies() {
            self.copy_batch(copies, feed, arenas, batch)?;
        }
        self.hidden(feed, arenas, batch)?;
        let last = self.net.depth() - 1;
        self.outputs(last, feed, arenas, batch)?;
        let (at, wanted) = (arenas.position(batch), feed.wanted(self.loss));
        let (z, results) = (arenas.last(), arenas.results(batch));
        loss(&self.gpu, &wanted, &at, z, &results, batch.mean, self.dims(last, batch))
    }

    /// The outputs of a layer.
    fn outputs(&self, layer: usize, feed: Feed<'_>, arenas: &Arenas, batch: Batch) -> Result<(), Error> {
        if let Some(copies) = arenas.copies() {
            return self.outputs_on(copies, layer, feed, arenas, batch);
        }
        let (x, at, y) =
            (self.source(layer, feed, arenas), arenas.position(batch), arenas.outputs[layer].all());
        let (w, b) = self.net.parameters(layer);
        linear(&self.gpu, &x, &at, w, b, y, self.net.activation(layer), self.dims(layer, batch))
    }

    /// The gradient at the outputs of the layer below.
    fn input_gradient(&self, layer: usize, batch: Batch) -> Result<(), Error> {
        if let Some(copies) = self.arenas.copies() {
            return self.input_gradient_on(copies, layer, batch);
        }
        let (w, _) = self.net.parameters(layer);
        let (dz, x) = (self.arenas.delta(layer), self.arenas.outputs[layer - 1].all());
        input_gradient(&self.gpu, dz, w, x, self.arenas.delta(layer - 1), self.dims(layer, batch))
    }

    /// The gradients of the parameters of all layers.
    fn weight_gradients(&self, feed: Feed<'_>, batch: Batch, goal: Goal) -> Result<(), Error> {
        let (arenas, layers) = (&self.arenas, 0..self.net.depth());
        if let Some(copies) = arenas.copies() {
            return layers.rev().try_for_each(|layer| {
                self.weight_gradient_on(copies, layer, feed, batch, &self.sink(layer, goal))
            });
        }
        let layer = |layer: usize| LayerGradient {
            x: layer.checked_sub(1).map(|below| arenas.outputs[below].all()),
            dz: arenas.delta(layer),
            sink: self.sink(layer, goal),
            dims: self.dims(layer, batch),
        };
        let layers: Vec<_> = layers.map(layer).collect();
        weight_gradients(&self.gpu, &feed.source, &arenas.position(batch), &layers)
    }

    /// Where the gradient of a layer's parameters goes.
    fn sink(&self, layer: usize, goal: Goal) -> Sink<'_> {
        match (goal, &self.optimizer) {
            (Goal::Update, Optimizer::Sgd(sgd)) => self.net.update(layer, sgd, self.arenas.scalars.all()),
            (Goal::Add, _) => self.net.add(layer),
            (Goal::Store, _) | (Goal::Update, Optimizer::AdamW(_)) => self.net.store(layer),
        }
    }

    /// The update of all layers by the gradients that are stored.
    fn update(&self, batch: Batch) -> Result<(), Error> {
        let (gpu, scalars, at) = (&self.gpu, self.arenas.scalars.all(), self.arenas.position(batch));
        let gradients = self.net.gradients();
        match &self.optimizer {
            Optimizer::Sgd(options) => {
                let (parameters, velocities) = self.net.sgd();
                sgd(gpu, parameters, velocities, gradients, scalars, &at, &sgd_options(options))?;
            }
            Optimizer::AdamW(options) => {
                let (parameters, moments) = self.net.adamw();
                adamw(gpu, parameters, &moments, gradients, scalars, &at, &adamw_options(options))?;
            }
        }
        self.net.copy_weights(gpu)
    }

    /// What a layer reads.
    fn source<'b>(&self, layer: usize, feed: Feed<'b>, arenas: &'b Arenas) -> Source<'b> {
        match layer {
            0 => feed.source,
            _ => Source::Hidden(arenas.outputs[layer - 1].all()),
        }
    }

    fn dims(&self, layer: usize, batch: Batch) -> Dims {
        let width = |at: usize| self.net.widths[at] as u32;
        Dims { b: batch.rows, k: width(layer), n: width(layer + 1) }
    }

    /// Runs the steps of `rows` rows from where the epoch stands: whole batches, and a tail.
    fn run(&mut self, rows: usize, stride: usize, side: usize) -> Result<(), Error> {
        let batch = |rows: usize| Batch::alone(rows, stride, side);
        // Taken out, so that a capture can borrow the engine whose launches it records.
        let mut captured = std::mem::take(&mut self.captured);
        let mut done = captured.run(self, rows / stride, batch(stride));
        if !rows.is_multiple_of(stride) {
            done = done.and_then(|()| captured.run(self, 1, batch(rows % stride)));
        }
        self.captured = captured;
        done
    }

    /// Begins an epoch and runs all its steps.
    fn run_epoch(&mut self, order: &[u32], stride: usize, scalars: &[Scalars]) -> Result<(), Error> {
        let chunk = self.begin(order, stride, scalars)?;
        for (number, rows) in order.chunks(chunk).enumerate() {
            self.load(rows, number % 2)?;
            let run = self.run(rows.len(), stride, number % 2);
            // Whatever came of it: steps that were submitted read the side.
            if let Data::Streamed(_, Some(streamed)) = &mut self.train {
                streamed.submitted(&self.gpu, number % 2)?;
            }
            run?;
        }
        Ok(())
    }

    /// Begins an epoch; gives the rows of a chunk, which is the whole of it where all samples are on the device.
    fn begin(&mut self, order: &[u32], stride: usize, scalars: &[Scalars]) -> Result<usize, Error> {
        let Data::Streamed(_, Some(streamed)) = &self.train else {
            self.arenas.begin(&self.gpu, order, scalars)?;
            return Ok(order.len());
        };
        // A chunk has its rows in the order of the epoch.
        let chunk = streamed.chunk(stride);
        let places: Vec<u32> = (0..order.len()).map(|at| (at % chunk) as u32).collect();
        self.arenas.begin(&self.gpu, &places, scalars)?;
        Ok(chunk)
    }

    /// Puts samples on a side, where they are streamed.
    fn load(&mut self, rows: &[u32], side: usize) -> Result<(), Error> {
        match &mut self.train {
            Data::Streamed(_, Some(streamed)) => {
                let _range = range(format_args!("load {} samples", rows.len()));
                streamed.load(&self.gpu, side, rows)
            }
            _ => Ok(()),
        }
    }

    /// Does what needs memory; where there is too little, once more without what evaluations have: training comes first.
    fn making_room(&mut self, needy: impl Fn(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        match needy(self) {
            Err(Error::DeviceMemory { .. }) if self.forget_evaluation() => {
                // What is freed goes back to the device when the stream has come so far.
                let synchronized = self.gpu.stream.synchronize();
                synchronized.map_err(|error| fault("waiting for memory", error))?;
                needy(self)
            }
            done => done,
        }
    }

    /// Makes room for batches of `stride` rows in epochs of `rows`.
    fn reserve(&mut self, stride: usize, rows: usize) -> Result<(), Error> {
        let batch = stride.min(self.part_rows() as usize);
        if batch < stride {
            self.net.reserve_gradients(&self.gpu)?;
        }
        // Both, not either: each may have moved.
        let data = self.train.reserve(&self.gpu, stride, self.captured_steps(), self.options.chunk_rows);
        let arenas = self.arenas.reserve(&self.gpu, batch, rows, rows.div_ceil(stride));
        // What failed has given its old memory back.
        if !matches!((&data, &arenas), (Ok(false), Ok(false))) {
            self.captured = Captured::default();
        }
        data.and(arenas).map(|_| ())
    }

    /// Loads the kernels of epochs of `rows` rows in batches of `stride`, if they are other epochs than the last.
    fn rehearse(&mut self, stride: usize, rows: usize) -> Result<(), Error> {
        if self.rehearsed == Some((rows, stride)) {
            return Ok(());
        }
        self.gpu.rehearse(|| {
            for rows in [stride, rows % stride].into_iter().filter(|&rows| rows > 0) {
                self.submit_step(Batch::alone(rows, stride, 0))?;
            }
            self.submit_advance(1)?;
            self.submit_sums(&self.arenas, rows, stride)
        })?;
        self.rehearsed = Some((rows, stride));
        Ok(())
    }

    /// Sums what the rows of an epoch came to, and reads back the losses.
    fn sums(&self, rows: usize, batch: usize) -> Result<Vec<f64>, Error> {
        self.submit_sums(&self.arenas, rows, batch)?;
        self.step_sums(&self.arenas, rows.div_ceil(batch))
    }

    /// Reads back the losses of so many steps.
    fn step_sums(&self, arenas: &Arenas, steps: usize) -> Result<Vec<f64>, Error> {
        let _range = range(format_args!("read back"));
        let mut sums = vec![0.0; steps];
        arenas.step_losses.download(&self.gpu, &mut sums)?;
        Ok(sums)
    }

    /// Sums what the rows of an epoch came to: one count of hits a step and one loss, not yet divided by its rows.
    fn submit_sums(&self, arenas: &Arenas, rows: usize, batch: usize) -> Result<(), Error> {
        let (losses, hits) = (arenas.losses.all(), arenas.hits.all());
        let (step_losses, step_hits) = (arenas.step_losses.all(), arenas.step_hits.all());
        let (rows, batch) = (rows as u32, batch.min(rows) as u32);
        batch_sums(&self.gpu, losses, hits, step_losses, step_hits, rows, batch)
    }
}

impl Drop for Graph<'_> {
    fn drop(&mut self) {
        // A run that ended early, by an error or by its caller's wish, leaves no profiler running; its error is told already.
        let _ = self.steps.stop_profiler(&self.gpu);
    }
}

impl Engine for Graph<'_> {
    fn describe(&self) -> String {
        let data = self.train.describe();
        let parts = self.options.micro_batch.map(|rows| format!(", batches in parts of {rows}"));
        format!("graph, {}, {}, {data}{}", self.gpu.name, self.options.precision, parts.unwrap_or_default())
    }

    fn prepare(&mut self, rows: usize, batch: usize) -> Result<(), Error> {
        let stride = batch.min(rows);
        self.making_room(|graph| {
            graph.reserve(stride, rows)?;
            graph.rehearse(stride, rows)
        })
    }

    fn epoch(
        &mut self,
        order: &[u32],
        batch: usize,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Epoch, Error> {
        self.prepare(order.len(), batch)?; // done already where the clock of `epochs` runs
        self.epochs += 1;
        let _range = range(format_args!("epoch {}", self.epochs));
        let (rows, stride) = (order.len(), batch.min(order.len()));
        let steps = rows.div_ceil(stride);
        let scalars = scalars(&self.optimizer, &self.schedule, self.steps.submitted() as u64, steps);
        let done = self.run_epoch(order, stride, &scalars);
        let sums = done.and_then(|()| self.sums(rows, stride));
        let sums = sums.map_err(|error| error.during(self.steps.open()))?;
        self.steps.done();
        let epoch = Epoch::of_sums(&sums, rows, stride)?;
        progress(Progress { samples: rows, loss: epoch.loss });
        Ok(epoch)
    }

    fn gradients(&mut self, rows: &[u32]) -> Result<Gradients, Error> {
        let _range = range(format_args!("gradients"));
        let count = rows.len();
        self.making_room(|graph| {
            graph.reserve(count, count)?;
            graph.net.reserve_gradients(&graph.gpu)
        })?;
        self.begin(rows, count, &[])?;
        self.load(rows, 0)?;
        self.submit_gradients(Batch::alone(count, count, 0))?;
        let sums = self.sums(count, count)?;
        let tensors = self.net.download_gradients(&self.gpu)?;
        Ok(Gradients { loss: sums[0] / count as f64, tensors })
    }

    fn keep(&mut self, samples: Option<&Samples<'_>>) -> Result<(), Error> {
        self.keep_samples(samples)
    }

    fn evaluate(&mut self, samples: &Samples<'_>) -> Result<Evaluation, Error> {
        let _range = range(format_args!("evaluation"));
        let (loss, hits) = self.evaluate_samples(samples)?;
        let all = samples.len() as f64;
        let labelled = matches!(samples.targets(), Targets::Labels(_));
        Ok(Evaluation { loss: loss / all, accuracy: labelled.then_some(hits as f64 / all) })
    }

    fn model(&self) -> Result<Mlp, Error> {
        self.net.download(&self.gpu)
    }

    fn state(&self) -> Result<TrainingState, Error> {
        let moments = self.net.download_moments(&self.gpu)?;
        Ok(TrainingState { model: self.model()?, moments, steps: self.steps.submitted() as u64 })
    }

    fn restore(&mut self, state: &TrainingState) -> Result<(), Error> {
        self.net.upload(&self.gpu, &state.model)?;
        self.net.upload_moments(&self.gpu, &state.moments)?;
        self.steps.go_on_from(state.steps as usize);
        Ok(())
    }
}
