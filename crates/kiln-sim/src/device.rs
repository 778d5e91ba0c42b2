//! A device: memory, modules and launches, all checked.

mod kernel;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::arch::Arch;
use crate::check::history::{Conflict, History};
use crate::check::shadow::EndedShadow;
use crate::finding::{Finding, Kind, Location, Place};
use crate::machine::{Launch, Outcome};
use crate::memory::{Allocation as Memory, GlobalMemory, Owner};
use crate::stamp::Stamp;

pub use crate::isa::Param;
pub use crate::machine::Schedule;
pub use crate::memory::{ExternalMemory, MemoryError};
pub use kernel::{Kernel, KernelInfo, LoadError, Module};

/// What a device is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Capability and limits.
    pub arch: Arch,
    /// Number of the device; its addresses do not overlap those of another.
    pub ordinal: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Whether races and uninitialised reads are looked for (bounds always are).
    pub checks: bool,
    /// Order of what is unordered.
    pub schedule: Schedule,
    /// Instructions of a warp that blocks which run together may execute: those of a cluster, or of a cooperative launch; on a random schedule,
    /// those of four clusters where blocks communicate.
    pub fuel: u64,
    /// Host threads that run blocks; 0 for all cores.
    pub threads: usize,
}

impl Config {
    /// Device 0 with 16 GiB, all checks, the fixed schedule and no limit that a program meets in a day.
    pub fn new(arch: Arch) -> Config {
        Config {
            arch,
            ordinal: 0,
            memory_bytes: 16 << 30,
            checks: true,
            schedule: Schedule::Fixed,
            fuel: 1 << 42,
            threads: 0,
        }
    }
}

/// Why an operation did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The checkers found something; the memory is left as it was when they did.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Findings(Vec<Finding>),
    /// The launch does not fit the kernel or the device.
    #[error("{0}")]
    InvalidLaunch(String),
}

/// An allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Number, never used again.
    pub id: u64,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<&Memory> for Allocation {
    fn from(memory: &Memory) -> Allocation {
        Allocation { id: memory.id, base: memory.base, bytes: memory.bytes }
    }
}

/// Grid, block and the rest of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks of the grid.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster, if the launch gives them (the kernel may too).
    pub cluster: Option<[u32; 3]>,
    /// Bytes of shared memory beyond what the kernel declares.
    pub dynamic_shared: u32,
    /// All blocks resident at once: barriers over the grid are allowed.
    pub cooperative: bool,
}

impl LaunchConfig {
    /// One dimension, no clusters.
    pub fn linear(blocks: u32, threads: u32) -> LaunchConfig {
        LaunchConfig {
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            cluster: None,
            dynamic_shared: 0,
            cooperative: false,
        }
    }
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaunchStats {
    /// Instructions, counted once a warp.
    pub instructions: u64,
}

/// One simulated GPU.
#[derive(Debug)]
pub struct Device {
    config: Config,
    memory: GlobalMemory,
    history: Mutex<History>,
    launches: AtomicU64,
    /// What cooperative launches keep their grid's barrier in.
    workspace: OnceLock<u64>,
    /// What kernels have printed and nobody has taken.
    printed: Mutex<String>,
    /// Modules without variables in memory, by their text: all that load one share it.
    modules: Mutex<HashMap<String, Arc<Module>>>,
}

impl Device {
    /// A device with nothing on it.
    pub fn new(mut config: Config) -> Device {
        if config.threads == 0 {
            config.threads = std::thread::available_parallelism().map_or(1, usize::from);
        }
        let memory = GlobalMemory::new(config.ordinal, config.memory_bytes);
        Device {
            config,
            memory,
            history: Mutex::default(),
            launches: AtomicU64::new(0),
            workspace: OnceLock::new(),
            printed: Mutex::default(),
            modules: Mutex::default(),
        }
    }

    /// What the device is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn printed(&self) -> MutexGuard<'_, String> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What kernels have printed with `printf` since the last call: launch after launch, and each launch in the order of
    /// its schedule.
    pub fn take_printed(&self) -> String {
        std::mem::take(&mut self.printed())
    }

    /// Allocates `bytes`, at a multiple of 256.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn alloc(&self, bytes: u64) -> Result<u64, MemoryError> {
        Ok(self.memory.alloc(bytes, 256, Owner::Program, None)?.base)
    }

    /// Frees an allocation, or a mapping made by [`Device::map`].
    ///
    /// # Errors
    /// Not the first address of either, or freed before.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let bytes = self.memory.find(address).map_or(0, |memory| memory.bytes);
        self.memory.free(address)?;
        self.history().forget(address, bytes);
        Ok(())
    }

    /// Makes memory of the host addressable at `address`.
    ///
    /// # Errors
    /// The range overlaps another.
    pub fn map(&self, address: u64, memory: Arc<dyn ExternalMemory>) -> Result<(), MemoryError> {
        self.memory.map(address, memory)
    }

    /// The allocation that holds a range, or a finding.
    fn range(&self, address: u64, bytes: u64, stamp: &Stamp) -> Result<Arc<Memory>, Fault> {
        if let Some(memory) = self.memory.find(address).filter(|memory| memory.holds(address, bytes)) {
            return Ok(memory);
        }
        let freed = self.memory.was_freed(address);
        let (kind, what) = if freed {
            (Kind::UseAfterFree, "of memory that has been freed")
        } else {
            (Kind::OutOfBounds, "outside any allocation")
        };
        Err(self.found(kind, format!("{bytes} bytes {what}"), address, bytes, stamp))
    }

    /// Whether a copy of `bytes` at `address` would find memory.
    ///
    /// # Errors
    /// Findings: out of bounds, freed.
    pub fn check_range(&self, address: u64, bytes: u64, stamp: &Stamp) -> Result<(), Fault> {
        self.range(address, bytes, stamp).map(drop)
    }

    fn found(&self, kind: Kind, message: String, address: u64, bytes: u64, stamp: &Stamp) -> Fault {
        let what = self.memory.describe(address);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let location = Some(Location { space: "global", address, bytes, what });
        Fault::Findings(vec![Finding {
            kind,
            message,
            place: Place::outside(stamp.label.clone()),
            other: None,
            location,
        }])
    }

    fn record(&self, address: u64, bytes: u64, write: bool, stamp: &Arc<Stamp>) -> Result<(), Fault> {
        if !self.config.checks {
            return Ok(());
        }
        let mut history = self.history();
        match history.record_range(address, bytes, write, stamp) {
            None => Ok(()),
            Some(conflict) => Err(Fault::Findings(vec![self.conflict(&conflict, stamp)])),
        }
    }

    /// Notes that memory is there from an operation on: to whatever accesses it without order, that is a write.
    pub fn allocated_by(&self, address: u64, bytes: u64, stamp: &Stamp) {
        if self.config.checks {
            self.history().allocate(address, bytes, &Arc::new(stamp.clone()));
        }
    }

    /// Looks whether memory may be freed by an operation: to whatever has accessed it without order, that is a write.
    ///
    /// # Errors
    /// A race with another operation.
    pub fn may_be_freed_by(&self, address: u64, bytes: u64, stamp: &Stamp) -> Result<(), Fault> {
        let conflict =
            self.history().end(address, bytes, &Arc::new(stamp.clone())).filter(|_| self.config.checks);
        match conflict {
            None => Ok(()),
            Some(conflict) => Err(Fault::Findings(vec![self.conflict(&conflict, stamp)])),
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conflict(&self, conflict: &Conflict, stamp: &Stamp) -> Finding {
        let what = self.memory.describe(conflict.address);
        let verb = if conflict.earlier_writes { "writes" } else { "reads" };
        Finding {
            kind: Kind::Race,
            message: format!(
                "two operations that no stream, event or wait orders; the other {verb} the same memory"
            ),
            place: Place::outside(stamp.label.clone()),
            other: Some(Place::outside(conflict.earlier.label.clone())),
            location: Some(Location { space: "global", address: conflict.address, bytes: 4, what }),
        }
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// Findings: out of bounds, freed, a race with another operation.
    pub fn write(&self, address: u64, from: &[u8], stamp: &Stamp) -> Result<(), Fault> {
        if from.is_empty() {
            return Ok(());
        }
        let memory = self.range(address, from.len() as u64, stamp)?;
        memory.write(address - memory.base, from);
        self.record(address, from.len() as u64, true, &Arc::new(stamp.clone()))
    }

    /// Copies from the device.
    ///
    /// # Errors
    /// As for [`Device::write`], and bytes that nobody has written.
    pub fn read(&self, address: u64, to: &mut [u8], stamp: &Stamp) -> Result<(), Fault> {
        if to.is_empty() {
            return Ok(());
        }
        let memory = self.range(address, to.len() as u64, stamp)?;
        memory.read(address - memory.base, to);
        self.written(&memory, address, to.len() as u64, stamp)?;
        self.record(address, to.len() as u64, false, &Arc::new(stamp.clone()))
    }

    fn written(&self, memory: &Memory, address: u64, bytes: u64, stamp: &Stamp) -> Result<(), Fault> {
        match memory.first_unwritten(address - memory.base, bytes).filter(|_| self.config.checks) {
            None => Ok(()),
            Some(at) => {
                let message = "a copy of memory that nobody has written".to_string();
                Err(self.found(Kind::Uninitialised, message, memory.base + at, 1, stamp))
            }
        }
    }

    /// Copies within the device.
    ///
    /// # Errors
    /// As for [`Device::read`].
    pub fn copy(&self, to: u64, from: u64, bytes: u64, stamp: &Stamp) -> Result<(), Fault> {
        if bytes == 0 {
            return Ok(());
        }
        let source = self.range(from, bytes, stamp)?;
        let target = self.range(to, bytes, stamp)?;
        target.copy_from(to - target.base, &source, from - source.base, bytes);
        self.written(&source, from, bytes, stamp)?;
        let stamp = Arc::new(stamp.clone());
        self.record(from, bytes, false, &stamp)?;
        self.record(to, bytes, true, &stamp)
    }

    /// Writes `pattern` `count` times.
    ///
    /// # Errors
    /// As for [`Device::write`].
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64, stamp: &Stamp) -> Result<(), Fault> {
        let bytes = count.saturating_mul(pattern.len() as u64);
        if bytes == 0 {
            return Ok(());
        }
        let memory = self.range(address, bytes, stamp)?;
        let piece = pattern.repeat((4096 / pattern.len()).max(1));
        let mut at = 0;
        while at < bytes {
            let length = (bytes - at).min(piece.len() as u64);
            memory.write(address - memory.base + at, &piece[..length as usize]);
            at += length;
        }
        self.record(address, bytes, true, &Arc::new(stamp.clone()))
    }

    /// The live allocation or mapping that holds an address.
    pub fn allocation(&self, address: u64) -> Option<Allocation> {
        self.memory.find(address).as_deref().map(Allocation::from)
    }

    /// Bytes free, bytes in all.
    pub fn memory_info(&self) -> (u64, u64) {
        self.memory.info()
    }

    /// The live allocations that the program made: not those of modules, not mappings.
    pub fn live(&self) -> Vec<Allocation> {
        self.memory.live().iter().map(|memory| Allocation::from(memory.as_ref())).collect()
    }

    /// The workspace of cooperative launches, as cooperative groups expect it: zeros, the grid's barrier among them.
    fn workspace(&self) -> Result<u64, Fault> {
        if let Some(&address) = self.workspace.get() {
            return Ok(address);
        }
        let owner = Owner::Module { constant: false };
        let memory = self.memory.alloc(256, 256, owner, Some("workspace of cooperative launches"));
        let memory = memory.map_err(|error| Fault::InvalidLaunch(error.to_string()))?;
        memory.write(0, &[0; 256]);
        Ok(*self.workspace.get_or_init(|| memory.base))
    }

    /// Runs a kernel to its end. `params` is laid out as [`KernelInfo::params`] says.
    ///
    /// # Errors
    /// A launch that does not fit, or findings.
    pub fn launch(
        &self,
        kernel: &Kernel,
        config: &LaunchConfig,
        params: &[u8],
        stamp: &Stamp,
    ) -> Result<LaunchStats, Fault> {
        let cluster = kernel.check(config, params, self.config.arch).map_err(Fault::InvalidLaunch)?;
        let launch = Launch {
            program: kernel.program(),
            function: kernel.function(),
            grid: config.grid,
            block: config.block,
            cluster,
            explicit_cluster: config.cluster.is_some() || kernel.info().cluster.is_some(),
            dynamic_shared: config.dynamic_shared,
            cooperative: config.cooperative,
            workspace: if config.cooperative { self.workspace()? } else { 0 },
            params,
            memory: &self.memory,
            tensor_core: self.config.arch.into(),
            checks: self.config.checks,
            schedule: self.config.schedule,
            fuel: self.config.fuel,
            threads: self.config.threads,
            number: self.launches.fetch_add(1, Relaxed),
        };
        let Outcome { mut findings, instructions, shadows, printed } = launch.run();
        *self.printed() += &printed;
        if self.config.checks {
            let stamp = Arc::new(stamp.clone());
            let mut history = self.history();
            for touched in shadows.iter().flat_map(EndedShadow::accesses) {
                let found = history.record(touched.address, &touched.reads, &touched.writes, &stamp);
                let known =
                    findings.iter().any(|finding| finding.kind == Kind::Race && finding.place.ptx_line == 0);
                if let (Some(conflict), false) = (found, known) {
                    findings.push(self.conflict(&conflict, &stamp));
                }
            }
        }
        if findings.is_empty() { Ok(LaunchStats { instructions }) } else { Err(Fault::Findings(findings)) }
    }
}
