//! The `resident` engine: whole epochs in one launch. One thread-block cluster keeps parameters and velocities in its registers
//! while batches stream past; `kernels/resident.cuh` is the training, `docs/RESIDENT.md` its picture.
//!
//! Here is what surrounds it: the choice of a cluster and of what its shared memory holds ([`plan`]), the data in the form that
//! the kernel reads, orders and learning rates of several epochs sent at once, and their results read back. Evaluations run
//! on the kernels of the `graph` engine, from the parameters that a launch leaves after each epoch, or beside the next launch
//! ([`ahead`]).

mod ahead;
mod phases;
mod plan;
mod run;
mod sweep;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{Engine, Pipeline};
use crate::gpu::resident::{Plan, RunRecord, Sizes, Training, active_runs, describe, planes, rows, train};
use crate::gpu::{Buffer, Gpu, InputForm, Scalars, Source, Team, fault, passed, resident_modules};
use crate::graph::Graph;
use crate::nvtx::range;
use crate::{
    Epoch, Error, Evaluation, Gradients, GraphOptions, Job, Mlp, Placement, Precision, Progress, Samples,
    Schedule, Sgd, Trained, TrainedEpochs, TrainingState,
};
use ahead::Ahead;
pub use phases::{PhaseCycles, PhaseProfile, profile_phases};
pub(crate) use plan::WEIGHTS_MAX;
use plan::{Demand, plans};
use run::RunState;
pub use sweep::Sweep;

/// Steps of a launch, about, so that the host hears of a long run a few times a second.
const STEPS_MAX: usize = 100_000;

/// The same where a kernel that runs for seconds is stopped: about one, at 100 µs a step.
const WATCHED_STEPS_MAX: usize = 10_000;

/// Memory for what the epochs of a launch need and leave, about.
const LAUNCH_BYTES_MAX: usize = 256 << 20;

/// What a [`crate::Trainer::resident`] runs on and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResidentOptions {
    /// Number of the device.
    pub device: usize,
    /// Arithmetic of the products of the first layer; those of the second are float32 always.
    pub precision: Precision,
    /// Most samples a batch.
    pub batch: usize,
    /// How the blocks work together; `None` for a cluster where the device places one, otherwise, and on sm_120, a grid.
    pub team: Option<Team>,
    /// Blocks, 8 or 16; `None` for what suits the model and the device.
    pub blocks: Option<u32>,
    /// Most epochs of a launch, which has some 100,000 steps and 256 MiB of orders and results at most in any case, and one epoch
    /// where the host evaluates after each ([`crate::Epochs::evaluating`]).
    pub epochs: Option<usize>,
}

/// Whether a job in batches of `batch` is one for the resident engine. Needs no device, which may still be too small for it.
///
/// # Errors
/// [`Error::Resident`] says what does not fit.
pub fn resident_fits(job: &Job<'_>, batch: usize) -> Result<(), Error> {
    plan::check(job, batch).map(|_| ())
}

/// What all runs on one device share: data, plan, and the engine that evaluates.
struct Core<'d> {
    graph: Graph<'d>,
    /// Inputs in the kernel's form.
    x: Buffer<u16>,
    form: InputForm,
    plan: Plan,
    /// Runs that the device trains at once.
    active: u32,
    /// Inputs, hidden units, classes.
    widths: [u32; 3],
    stop: Buffer<u32>,
    /// For the wish to stop, which a launch under way must not hold up: the stream is there before it.
    beside: Gpu,
    records: Buffer<RunRecord>,
    exchange: Buffer<u64>,
    options: ResidentOptions,
}

impl<'d> Core<'d> {
    /// For a job that [`plan::check`] lets pass. `timed`: with the kernels that count cycles, too.
    fn new(job: Job<'d>, options: ResidentOptions, timed: bool) -> Result<Self, Error> {
        let widths = [0, 1, 2].map(|layer| job.model.layers()[layer] as u32);
        let samples = job.train.len() as u32;
        let graph_options = GraphOptions {
            device: options.device,
            precision: options.precision,
            placement: Placement::Resident,
            ..GraphOptions::default()
        };
        let mut graph = Graph::new(job, graph_options)?;
        if options.team.is_some_and(|team| !graph.gpu.teams.contains(&team)) {
            let (what, expected) =
                ("thread-block clusters", "a device that has them (sm_90 or newer)".into());
            return Err(Error::Resident { what, expected, found: graph.gpu.name.clone() });
        }
        check_steps(&graph.gpu, (samples as usize).div_ceil(options.batch.max(1)), 1)?;
        let form = match graph.samples().0 {
            Source::Pixels(_) => InputForm::Pixels,
            Source::Floats(_) | Source::Hidden(_) => InputForm::Floats,
        };
        let teams = graph.gpu.teams.iter().copied();
        let teams: Vec<Team> =
            teams.filter(|&team| options.team.is_none_or(|wanted| wanted == team)).collect();
        let (plan, active) = choose(&mut graph.gpu, &teams, form, widths, &options)?;
        if timed {
            graph.gpu.add(&resident_modules(plan.team, options.precision, form, true));
        }
        let x = rows(&graph.gpu, &graph.samples().0, options.precision, samples, widths[0])?;
        let stop = Buffer::new(&graph.gpu, "the wish to stop", 1)?;
        let beside = graph.gpu.beside()?;
        let records = Buffer::new(&graph.gpu, "descriptions of runs", 1)?;
        let exchange = Buffer::new(&graph.gpu, "what blocks exchange", 0)?;
        Ok(Self { graph, x, form, plan, active, widths, stop, beside, records, exchange, options })
    }

    fn describe(&self) -> String {
        let (name, precision) = (&self.graph.gpu.name, self.options.precision);
        format!("resident, {name}, {precision}, {} with {} units each", self.describe_team(), self.plan.units)
    }

    fn describe_team(&self) -> String {
        match self.plan {
            Plan { team: Team::Cluster, blocks, .. } => format!("one cluster of {blocks} blocks"),
            Plan { team: Team::Grid, blocks, .. } => format!("{blocks} cooperative blocks"),
        }
    }

    /// How many epochs of so many rows make a launch of so many runs: neither its steps nor its memory go without bound.
    fn together(&self, rows: usize, batch: usize, runs: usize) -> usize {
        let steps = rows.div_ceil(batch.min(rows).max(1)).max(1);
        // The order, the loss and the hit of each row; parameters and velocities after the epoch, if there is one run.
        let snapshot = if runs == 1 { self.sizes(1, 1, 1).snapshot() * size_of::<f32>() } else { 0 };
        let bytes = (rows * 3 * size_of::<u32>() + snapshot).saturating_mul(runs);
        let most = (self.steps_max() / steps).min(LAUNCH_BYTES_MAX / bytes.max(1)).max(1);
        self.options.epochs.map_or(most, |wanted| wanted.clamp(1, most))
    }

    fn steps_max(&self) -> usize {
        if self.graph.gpu.watchdog { WATCHED_STEPS_MAX } else { STEPS_MAX }
    }

    /// Whether so many epochs of so many rows in such batches can be trained in one launch.
    fn check_launch(&self, rows: usize, batch: usize, epochs: usize) -> Result<(), Error> {
        if batch > self.options.batch {
            let expected = format!("at most {}, as announced", self.options.batch);
            return Err(Error::Resident { what: "samples a batch", expected, found: batch.to_string() });
        }
        check_steps(&self.graph.gpu, rows.div_ceil(batch.max(1)), epochs)
    }

    fn sizes(&self, rows: usize, batch: usize, epochs: usize) -> Sizes {
        let [k, h, c] = self.widths;
        Sizes { k, h, c, batch: batch.min(rows) as u32, rows: rows as u32, epochs: epochs as u32 }
    }

    /// Trains what the runs have begun; how many epochs each came to.
    fn train(&mut self, sizes: &Sizes, runs: &[RunState], stop: &AtomicBool) -> Result<Vec<usize>, Error> {
        self.train_timed(sizes, runs, stop, None)
    }

    /// The same, with the cycles of each phase of each block, where there is a place for them.
    fn train_timed(
        &mut self,
        sizes: &Sizes,
        runs: &[RunState],
        stop: &AtomicBool,
        times: Option<&Buffer<u64>>,
    ) -> Result<Vec<usize>, Error> {
        // Clusters wait their turn, where nobody ends a launch for that; blocks of a grid must all run at once.
        let waits = self.plan.team == Team::Cluster && !self.graph.gpu.watchdog;
        let at_once = if waits { runs.len() } else { self.active as usize };
        let mut epochs = Vec::new();
        self.stop.clear(&self.graph.gpu)?;
        for runs in runs.chunks(at_once.max(1)) {
            epochs.extend(self.launch(sizes, runs, stop, times)?);
        }
        Ok(epochs)
    }

    /// One launch of the training.
    fn launch(
        &mut self,
        sizes: &Sizes,
        runs: &[RunState],
        stop: &AtomicBool,
        times: Option<&Buffer<u64>>,
    ) -> Result<Vec<usize>, Error> {
        let gpu = &self.graph.gpu;
        if self.records.len() < runs.len() {
            self.records = Buffer::new(gpu, "descriptions of runs", runs.len())?;
        }
        let described: Vec<_> = runs.iter().map(RunState::run).collect();
        describe(gpu, sizes, &described, &mut self.records)?;
        let shared = training(&self.x, self.form, &self.graph, &self.stop, times);
        train(gpu, &self.plan, sizes, &shared, runs.len(), &self.records, &mut self.exchange)?;
        self.wait(stop)?;
        let mut records = vec![RunRecord::default(); runs.len()];
        self.records.download(gpu, &mut records)?;
        Ok(records.iter().map(|record| record.epochs as usize).collect())
    }

    /// Waits for the training to end; meanwhile passes on a wish to stop.
    fn wait(&self, stop: &AtomicBool) -> Result<(), Error> {
        let failed = |error| fault("training in one launch", error);
        let stream = &self.graph.gpu.stream;
        let done = stream.record_event(None).map_err(failed)?;
        let mut passed_on = false;
        while !passed(&done).map_err(failed)? {
            if !passed_on && stop.load(Ordering::Relaxed) {
                self.stop.overtake(&self.beside, 1)?;
                passed_on = true;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        stream.synchronize().map_err(failed)
    }
}

/// Whether a launch of so many epochs, one at least, of so many steps each ends before a watchdog stops it.
fn check_steps(gpu: &Gpu, steps: usize, epochs: usize) -> Result<(), Error> {
    let all = steps.saturating_mul(epochs);
    if gpu.watchdog && all > WATCHED_STEPS_MAX {
        let what = if epochs == 1 { "steps an epoch" } else { "steps of the epochs of a launch" };
        let expected =
            format!("at most {WATCHED_STEPS_MAX} where the GPU drives a display, which ends long kernels");
        return Err(Error::Resident { what, expected, found: all.to_string() });
    }
    Ok(())
}

/// What all runs of a launch share.
fn training<'b>(
    x: &'b Buffer<u16>,
    form: InputForm,
    graph: &'b Graph<'_>,
    stop: &'b Buffer<u32>,
    times: Option<&'b Buffer<u64>>,
) -> Training<'b> {
    Training { x: x.all(), form, wanted: graph.samples().1, stop: stop.all(), times: times.map(Buffer::all) }
}

/// The best plan of which the device can place the blocks of a run, and how many runs it can; `teams` in order. Loads the
/// kernels that it asks about.
fn choose(
    gpu: &mut Gpu,
    teams: &[Team],
    form: InputForm,
    [inputs, hidden, classes]: [u32; 3],
    options: &ResidentOptions,
) -> Result<(Plan, u32), Error> {
    let demand = |team| Demand {
        team,
        inputs: inputs as usize,
        hidden: hidden as usize,
        classes: classes as usize,
        batch: options.batch.max(1),
        planes: planes(form, options.precision),
        terms: planes(InputForm::Floats, options.precision),
    };
    let (mut tried, mut refused) = (Vec::new(), None);
    for &team in teams {
        let plans = match plans(demand(team), options.blocks, gpu.shared_bytes as usize) {
            Ok(plans) => plans,
            Err(error) => {
                refused = Some(error);
                continue;
            }
        };
        gpu.add(&resident_modules(team, options.precision, form, false));
        for plan in plans {
            let active = active_runs(gpu, form, &plan)?;
            if active > 0 {
                return Ok((plan, active));
            }
            let (blocks, bytes) = (plan.blocks, plan.shared_bytes);
            tried.push(format!("a {team} of {blocks} blocks with {bytes} bytes of shared memory each"));
        }
    }
    let expected = format!("room for {}", tried.join(", or for "));
    let no_room = Error::Resident { what: "blocks", expected, found: format!("none on {}", gpu.name) };
    Err(if tried.is_empty() { refused.unwrap_or(no_room) } else { no_room })
}

/// The engine: one run.
pub(crate) struct Resident<'d> {
    // Declared first, and so dropped before the buffers that its launches use.
    ahead: Option<Ahead>,
    core: Core<'d>,
    runs: [RunState; 1],
    /// The last of [`Engine::epochs`].
    launch: Launch,
}

/// Where the epochs of a launch stand in the run.
#[derive(Default)]
struct Launch {
    /// Steps before the first.
    before: u64,
    /// Steps of each.
    epoch: usize,
}

impl<'d> Resident<'d> {
    /// Takes over a job that has been checked.
    pub(crate) fn new(job: Job<'d>, options: ResidentOptions) -> Result<Self, Error> {
        let (sgd, schedule) = (plan::check(&job, options.batch)?, job.schedule);
        let mut core = Core::new(job, options, false)?;
        let run = RunState::new(&mut core.graph, sgd, schedule)?.with_snapshots(&core.graph.gpu)?;
        Ok(Self { ahead: None, core, runs: [run], launch: Launch::default() })
    }
}

/// Gives each epoch its share of the host's seconds.
fn share_out(epochs: &mut [Trained], seconds: f64) {
    let (count, all) = (epochs.len() as f64, epochs.iter().map(|trained| trained.seconds).sum::<f64>());
    for trained in epochs {
        // The device's clock may have ticked for none of them.
        trained.seconds = if all > 0.0 { seconds * trained.seconds / all } else { seconds / count };
    }
}

impl Engine for Resident<'_> {
    fn describe(&self) -> String {
        self.core.describe()
    }

    fn epoch(
        &mut self,
        order: &[u32],
        batch: usize,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Epoch, Error> {
        let trained = self.epochs(&[order.to_vec()], batch, &AtomicBool::new(false), progress)?;
        Ok(trained.whole()?[0].epoch)
    }

    fn epochs(
        &mut self,
        orders: &[Vec<u32>],
        batch: usize,
        stop: &AtomicBool,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<TrainedEpochs, Error> {
        let rows = orders[0].len();
        let batch = batch.min(rows);
        let alike = orders.iter().take_while(|order| order.len() == rows).count();
        let orders = &orders[..alike];
        self.core.check_launch(rows, batch, orders.len())?;
        let sizes = self.core.sizes(rows, batch, orders.len());
        let started = Instant::now();
        self.runs[0].begin(&self.core.graph.gpu, &sizes, orders)?;
        let epochs = self.core.train(&sizes, &self.runs, stop)?[0];
        self.launch = Launch { before: self.runs[0].steps, epoch: rows.div_ceil(batch) };
        let mut trained = self.runs[0].end(&self.core.graph.gpu, &sizes, epochs)?;
        share_out(&mut trained.epochs, started.elapsed().as_secs_f64());
        // One that is lost is seen as it is.
        self.look_at(if trained.lost.is_some() { trained.epochs.len() } else { trained.epochs.len() - 1 })?;
        if let (Some(last), None) = (trained.epochs.last(), &trained.lost) {
            progress(Progress { samples: rows, loss: last.epoch.loss });
        }
        Ok(trained)
    }

    fn together(&self, rows: usize, batch: usize) -> usize {
        self.core.together(rows, batch, 1)
    }

    fn pipeline(&mut self) -> Option<&mut dyn Pipeline> {
        Some(self)
    }

    fn settle(&mut self) -> Result<(), Error> {
        let [run] = &mut self.runs;
        if let Some(ahead) = &mut self.ahead {
            ahead.settle(&self.core)?;
        }
        // An epoch before the last may be seen: others were under way, or followed in its launch.
        if run.seen == run.steps { Ok(()) } else { run.show(&mut self.core.graph) }
    }

    fn keep(&mut self, samples: Option<&Samples<'_>>) -> Result<(), Error> {
        self.core.graph.keep(samples)
    }

    fn look_at(&mut self, epoch: usize) -> Result<(), Error> {
        let ([run], launch) = (&mut self.runs, &self.launch);
        run.span.show(&mut self.core.graph, epoch)?;
        run.seen = launch.before + ((epoch + 1) * launch.epoch) as u64;
        Ok(())
    }

    /// One step without a velocity and with a learning rate of 0: the new velocity is the gradient.
    fn gradients(&mut self, rows: &[u32]) -> Result<Gradients, Error> {
        if rows.len() > self.core.options.batch {
            return self.core.graph.gradients(rows);
        }
        let _range = range(format_args!("gradients"));
        let sizes = self.core.sizes(rows.len(), rows.len(), 1);
        let mut run = RunState::new(&mut self.core.graph, Sgd::default(), Schedule::default())?;
        run.span.begin(&self.core.graph.gpu, &sizes, rows, &[Scalars::sgd(0.0, 0.0, 1.0)])?;
        let runs = [run];
        self.core.train(&sizes, &runs, &AtomicBool::new(false))?;
        let loss = runs[0].span.sums(&self.core.graph.gpu, &sizes, 1)?[0] / rows.len() as f64;
        Ok(Gradients { loss, tensors: self.core.graph.tensors(&runs[0].velocities)? })
    }

    fn evaluate(&mut self, samples: &Samples<'_>) -> Result<Evaluation, Error> {
        self.core.graph.evaluate(samples)
    }

    fn model(&self) -> Result<Mlp, Error> {
        self.core.graph.model()
    }

    fn state(&self) -> Result<TrainingState, Error> {
        Ok(TrainingState { steps: self.runs[0].seen, ..self.core.graph.state()? })
    }

    fn restore(&mut self, state: &TrainingState) -> Result<(), Error> {
        self.core.graph.restore(state)?;
        self.runs[0].restore(&mut self.core.graph, state.steps)
    }
}

impl Pipeline for Resident<'_> {
    fn depth(&self) -> usize {
        ahead::EPOCHS
    }

    fn submit(&mut self, order: &[u32], batch: usize) -> Result<(), Error> {
        let batch = batch.min(order.len());
        self.core.check_launch(order.len(), batch, 1)?;
        let ahead = match &mut self.ahead {
            Some(ahead) => ahead,
            none => none.insert(Ahead::new(&self.core)?),
        };
        ahead.submit(&mut self.core, &mut self.runs[0], order, batch)
    }

    fn collect(&mut self) -> Result<Trained, Error> {
        let Some(ahead) = &mut self.ahead else { unreachable!("epochs are collected that were submitted") };
        let trained = ahead.collect(&mut self.core, &mut self.runs[0]);
        if trained.is_err() {
            // It is told already why.
            let _ = self.settle();
        }
        trained
    }
}

#[cfg(test)]
mod tests {
    use kiln_tests::on_device;

    use super::*;
    use crate::{Loss, Targets};

    #[test]
    fn a_watchdog_bounds_the_steps_of_a_launch() {
        on_device!();
        let rows = WATCHED_STEPS_MAX + 1;
        let (pixels, labels) = (vec![7; 2 * rows], vec![1; rows]);
        let job = Job {
            model: Mlp::new(&[2, 3, 2], 0).unwrap(),
            loss: Loss::CrossEntropy,
            optimizer: Sgd::default().into(),
            schedule: Schedule::default(),
            train: Samples::pixels(&pixels, 2, Targets::Labels(&labels)).unwrap(),
        };
        let options = ResidentOptions {
            device: 0,
            precision: Precision::F32,
            batch: 16,
            team: None,
            blocks: None,
            epochs: None,
        };
        let mut engine = Resident::new(job, options).unwrap();
        assert_eq!(engine.together(1600, 16), STEPS_MAX / 100);
        engine.core.graph.gpu.watchdog = true;
        assert_eq!(engine.together(1600, 16), WATCHED_STEPS_MAX / 100);
        let order: Vec<u32> = (0..rows as u32).collect();
        let refused = engine.epoch(&order, 1, &mut |_| ()).unwrap_err().to_string();
        assert!(refused.contains("steps an epoch: expected at most 10000"), "{refused}");
        assert_eq!(engine.epoch(&order[..40], 16, &mut |_| ()).unwrap().steps, 3);
        let refused = engine.core.check_launch(1600, 16, 101).unwrap_err().to_string();
        assert!(refused.contains("steps of the epochs of a launch: expected at most 10000"), "{refused}");
        assert!(refused.contains("found 10100"), "{refused}");
        engine.core.check_launch(1600, 16, 100).unwrap();
    }
}
