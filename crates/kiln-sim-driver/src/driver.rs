//! The driver's whole state, behind one lock.
//!
//! One lock, because the simulator's first promise is that two runs do the same: calls of several host threads
//! are served one after the other, and a kernel runs to its end inside the call that made it ready.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::arch::{self, Limits};
use crate::capture::Capture;
use crate::config::{Faults, SettingError, Settings};
use crate::context::Context;
use crate::gpu::Gpu;
use crate::graph::{Exec, Graph, Node};
use crate::handle::{Handle, Table};
use crate::memory::Memory;
use crate::module::{Function, Module};
use crate::order::Order;
use crate::pool::Pool;
use crate::queue::{Task, Ticket};
use crate::report::{Reporter, note};
use crate::sources::Source;
use crate::status::{Outcome, Status};
use crate::stream::{Event, Stream};

/// All that the driver knows.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) settings: Settings,
    /// What every device is.
    pub(crate) limits: Limits,
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) contexts: Table<Context>,
    pub(crate) streams: Table<Stream>,
    pub(crate) events: Table<Event>,
    pub(crate) modules: Table<Module>,
    pub(crate) functions: Table<Function>,
    pub(crate) pools: Table<Pool>,
    pub(crate) graphs: Table<Graph>,
    pub(crate) nodes: Table<Node>,
    pub(crate) execs: Table<Exec>,
    /// Captures begun so far.
    pub(crate) captures_begun: u64,
    /// Captures under way, by number.
    pub(crate) captures: BTreeMap<u64, Capture>,
    pub(crate) memory: Memory,
    /// What copies from pinned memory have read and the host has not yet waited for.
    pub(crate) sources: Vec<Source>,
    pub(crate) order: Order,
    /// Operations that wait for a function of the program to return.
    pub(crate) waiting: Vec<Task>,
    pub(crate) reporter: Reporter,
    pub(crate) countdown: Countdown,
}

/// How much has happened, for the faults on order.
#[derive(Debug, Default)]
pub(crate) struct Countdown {
    allocations: u64,
    launches: u64,
    operations: u64,
}

impl Countdown {
    /// Counts an allocation of `bytes` where `used` are in use; whether it fails on order.
    pub(crate) fn allocation_fails(&mut self, faults: &Faults, used: u64, bytes: u64) -> bool {
        self.allocations += 1;
        faults.allocation == Some(self.allocations)
            || faults.bytes.is_some_and(|most| used.saturating_add(bytes) > most)
    }

    /// Counts a launch; whether it fails on order.
    pub(crate) fn launch_fails(&mut self, faults: &Faults) -> bool {
        self.launches += 1;
        faults.launch == Some(self.launches)
    }

    /// Counts an operation; whether its device is lost with it.
    pub(crate) fn loses_device(&mut self, faults: &Faults) -> bool {
        self.operations += 1;
        faults.lost == Some(self.operations)
    }
}

impl Driver {
    fn new(settings: Settings) -> Result<Driver, SettingError> {
        let reporter = Reporter::open(settings.report.as_deref())
            .map_err(|error| SettingError::report(&settings, &error))?;
        let mut pools = Table::new(5, Status::INVALID_VALUE);
        let gpus = (0..settings.devices)
            .map(|ordinal| Gpu::new(&settings, ordinal, pools.insert(Pool::new(ordinal, true))))
            .collect();
        Ok(Driver {
            limits: arch::limits(settings.arch),
            gpus,
            contexts: Table::new(0, Status::INVALID_CONTEXT),
            streams: Table::new(1, Status::INVALID_HANDLE),
            events: Table::new(2, Status::INVALID_HANDLE),
            modules: Table::new(3, Status::INVALID_HANDLE),
            functions: Table::new(4, Status::INVALID_HANDLE),
            pools,
            graphs: Table::new(6, Status::INVALID_VALUE),
            nodes: Table::new(7, Status::INVALID_VALUE),
            execs: Table::new(8, Status::INVALID_VALUE),
            captures_begun: 0,
            captures: BTreeMap::new(),
            memory: Memory::default(),
            sources: Vec::new(),
            order: Order::default(),
            waiting: Vec::new(),
            reporter,
            countdown: Countdown::default(),
            settings,
        })
    }

    /// The GPU of an ordinal as C gives it.
    pub(crate) fn gpu(&self, ordinal: i32) -> Outcome<usize> {
        usize::try_from(ordinal).ok().filter(|&at| at < self.gpus.len()).ok_or(Status::INVALID_DEVICE)
    }

    /// The handle of the thread's current context, if that can be worked with.
    pub(crate) fn context(&self) -> Outcome<Handle> {
        let context = crate::context::current().ok_or(Status::INVALID_CONTEXT)?;
        self.check(context)?;
        Ok(context)
    }

    /// An error if a context cannot be worked with.
    pub(crate) fn check(&self, context: Handle) -> Outcome {
        if self.contexts.was_destroyed(context) {
            return Err(Status::CONTEXT_IS_DESTROYED);
        }
        let context = self.contexts.get(context)?;
        if context.surfaced { context.error.map_or(Ok(()), Err) } else { Ok(()) }
    }
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// Whether the thread runs a function of the program that a stream called, which may not call the driver.
    static IN_A_STREAM: Cell<bool> = const { Cell::new(false) };
}

/// Runs a function of the program in a stream's turn, without the lock.
pub(crate) fn in_a_stream(function: impl FnOnce()) {
    IN_A_STREAM.set(true);
    function();
    IN_A_STREAM.set(false);
}

/// The lock on the driver, held while a call is served.
pub(crate) struct Session(Option<MutexGuard<'static, Option<Driver>>>);

impl Session {
    /// Creates the driver, once.
    pub(crate) fn initialise() -> Result<(), SettingError> {
        let mut guard = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(Driver::new(Settings::from_environment()?)?);
            crate::report::watch_exit();
        }
        Ok(())
    }

    /// Takes the lock if nobody holds it and the driver has been initialised.
    pub(crate) fn try_open() -> Option<Session> {
        let guard = match DRIVER.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        guard.is_some().then(|| Session(Some(guard)))
    }

    /// Takes the lock. An error before `cuInit`, and in a function that a stream has called.
    pub(crate) fn open() -> Outcome<Session> {
        if IN_A_STREAM.get() {
            note("a host function", "may not call the driver");
            return Err(Status::NOT_PERMITTED);
        }
        let guard = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() { Ok(Session(Some(guard))) } else { Err(Status::NOT_INITIALIZED) }
    }

    /// Waits until all tickets are done, with the lock given back meanwhile.
    pub(crate) fn wait(&mut self, tickets: &[Ticket]) {
        while !tickets.iter().all(Ticket::is_done) {
            let guard = self.0.take().expect("the lock is held between calls of wait");
            self.0 = Some(CHANGED.wait(guard).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Wakes the calls that wait, after tickets have been done.
    pub(crate) fn changed() {
        CHANGED.notify_all();
    }
}

impl Deref for Session {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        self.0.as_deref().and_then(Option::as_ref).expect("a session is open on an initialised driver")
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Driver {
        self.0.as_deref_mut().and_then(Option::as_mut).expect("a session is open on an initialised driver")
    }
}
