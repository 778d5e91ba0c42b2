//! Runs of one model side by side: a cluster, or some blocks of a grid, trains one run, and a launch takes as many as it is asked for.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use super::run::{RunState, Span};
use super::{Core, ResidentOptions};
use crate::engine::Engine;
use crate::trainer::{check_epoch, evaluate};
use crate::{Error, Evaluation, Job, Loss, Mlp, Samples, Sgd, TrainedEpochs};

/// Runs that differ in initial parameters, optimizer and schedule, and share layers, loss and samples. Each gives the same bits
/// as alone on a [`crate::Trainer::resident`].
pub struct Sweep<'d> {
    core: Core<'d>,
    runs: Vec<RunState>,
    /// Those that were trained last.
    last: Range<usize>,
    /// Widths of the model.
    layers: Vec<usize>,
    loss: Loss,
    samples: usize,
}

impl<'d> Sweep<'d> {
    /// Runs of these jobs, side by side on one GPU. Jobs are taken one by one: on the host, one model lives at a time.
    ///
    /// # Errors
    /// [`Error::Empty`] for no job at all, [`Error::Resident`] where jobs differ in what they must share, that of a job that could not be
    /// made, and as [`crate::Trainer::resident`].
    pub fn resident(
        jobs: impl IntoIterator<Item = Result<Job<'d>, Error>>,
        options: &ResidentOptions,
    ) -> Result<Self, Error> {
        let mut jobs = jobs.into_iter();
        let first = jobs.next().ok_or(Error::Empty { what: "sweep" })??;
        let (layers, loss, train) = (first.model.layers().to_vec(), first.loss, first.train);
        let (optimizer, schedule) = (Self::check(&first, options)?, first.schedule);
        let mut core = Core::new(first, *options, false)?;
        let mut runs = vec![RunState::new(&mut core.graph, optimizer, schedule)?];
        for job in jobs {
            let job = job?;
            let optimizer = Self::check(&job, options)?;
            if (job.model.layers(), job.loss, job.train) != (&layers[..], loss, train) {
                let (what, expected) = ("runs of a sweep", "the same layers, loss and samples".to_owned());
                return Err(Error::Resident { what, expected, found: "others".to_owned() });
            }
            core.graph.set_model(&job.model)?;
            runs.push(RunState::new(&mut core.graph, optimizer, job.schedule)?);
        }
        Ok(Self { core, runs, last: 0..0, layers, loss, samples: train.len() })
    }

    fn check(job: &Job<'_>, options: &ResidentOptions) -> Result<Sgd, Error> {
        job.check()?;
        super::plan::check(job, options.batch)
    }

    /// What runs and where, for a person.
    pub fn describe(&self) -> String {
        format!(
            "resident, {}, {}, {} runs, of which {} train at once, {} each",
            self.core.graph.gpu.name,
            self.core.options.precision,
            self.runs.len(),
            self.at_once(),
            self.core.describe_team(),
        )
    }

    /// How many of the runs train at the same time.
    pub fn at_once(&self) -> usize {
        (self.core.active as usize).min(self.runs.len()).max(1)
    }

    /// How many epochs of so many rows [`Sweep::at_once`] runs like to train at once; where the GPU drives a display, it takes no more.
    pub fn together(&self, rows: usize, batch: usize) -> usize {
        self.core.together(rows, batch, self.at_once())
    }

    /// Trains the run `first`, counted from 0, and those after it, each over the orders of its own in `orders`, an epoch each; all
    /// orders are of one length, and all runs have as many. Gives the epochs of each of these runs, of which some may be lost. Where
    /// `stop` is set meanwhile, runs may end after an epoch. More runs than train at once wait their turn.
    ///
    /// # Errors
    /// As [`crate::Trainer::epoch`] for bad input; [`Error::Resident`] for orders that differ in length or number, or of more runs than
    /// there are, too.
    pub fn epochs(
        &mut self,
        first: usize,
        orders: &[Vec<Vec<u32>>],
        batch: usize,
        stop: &AtomicBool,
    ) -> Result<Vec<TrainedEpochs>, Error> {
        let rows = orders.first().and_then(|run| run.first()).map_or(0, Vec::len);
        let epochs = orders.first().map_or(0, Vec::len);
        if epochs == 0 || rows == 0 {
            return Err(Error::Empty { what: "orders" });
        }
        let there = self.runs.len().saturating_sub(first);
        if orders.len() > there {
            let (what, expected) = ("runs of a sweep", format!("at most {there} from run {first} on"));
            return Err(Error::Resident { what, expected, found: orders.len().to_string() });
        }
        if orders.iter().any(|run| run.len() != epochs || run.iter().any(|order| order.len() != rows)) {
            let (what, expected) = ("orders of a sweep", "as many for each run, of one length".to_owned());
            return Err(Error::Resident { what, expected, found: "others".to_owned() });
        }
        for order in orders.iter().flatten() {
            check_epoch(order, batch, self.samples)?;
        }
        let batch = batch.min(rows);
        self.core.check_launch(rows, batch, epochs)?;
        let sizes = self.core.sizes(rows, batch, epochs);
        let wanted = first..first + orders.len();
        // What the last runs had for their epochs is no longer needed by those that are not among these.
        for at in std::mem::replace(&mut self.last, wanted.clone()) {
            if !wanted.contains(&at) {
                self.runs[at].span = Span::new(&self.core.graph.gpu)?;
            }
        }
        let runs = &mut self.runs[wanted];
        for (run, orders) in runs.iter_mut().zip(orders) {
            run.begin(&self.core.graph.gpu, &sizes, orders)?;
        }
        let trained = self.core.train(&sizes, runs, stop)?;
        let gpu = &self.core.graph.gpu;
        runs.iter_mut().zip(trained).map(|(run, epochs)| run.end(gpu, &sizes, epochs)).collect()
    }

    /// Loss and accuracy of a run, counted from 0, on the given samples.
    ///
    /// # Errors
    /// As [`crate::Trainer::evaluate`].
    pub fn evaluate(&mut self, run: usize, samples: &Samples<'_>) -> Result<Evaluation, Error> {
        self.look_at(run)?;
        evaluate(&mut self.core.graph, &self.layers, self.loss, samples)
    }

    /// The model of a run, counted from 0.
    ///
    /// # Errors
    /// As [`crate::Trainer::model`].
    pub fn model(&mut self, run: usize) -> Result<Mlp, Error> {
        self.look_at(run)?;
        self.core.graph.model()
    }

    fn look_at(&mut self, run: usize) -> Result<(), Error> {
        let (gpu, arena) = self.core.graph.parameters();
        let len = arena.len();
        arena.copy_from(gpu, &self.runs[run].parameters, 0..len)
    }
}
