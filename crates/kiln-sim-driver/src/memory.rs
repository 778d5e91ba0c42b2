//! What is allocated: device memory, and host memory that kernels can address.
//!
//! Pinned, managed and registered host memory is mapped on every device under the address that it has on the
//! host. The program reads and writes it directly, which the simulator cannot see: a race between the program
//! itself and a kernel is not found.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_sim::device::{ExternalMemory, MemoryError};

use crate::driver::Driver;
use crate::ffi::HostAddress;
use crate::handle::Handle;
use crate::report::note;
use crate::status::{Outcome, Status};

/// What kind of memory a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On one GPU.
    Device(usize),
    /// `cuMemHostAlloc` and kin.
    Pinned,
    /// `cuMemAllocManaged`.
    Managed,
    /// The program's own memory, announced with `cuMemHostRegister`.
    Registered,
}

impl Kind {
    /// For a sentence: `4 bytes of ...`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Device(_) => "device memory",
            Kind::Pinned => "pinned host memory",
            Kind::Managed => "managed memory",
            Kind::Registered => "registered host memory",
        }
    }
}

/// A block of memory.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) bytes: u64,
    pub(crate) kind: Kind,
    /// The context in which it was allocated.
    pub(crate) context: Handle,
    /// The pool that it came from.
    pub(crate) pool: Option<Handle>,
    /// The call that allocated it.
    pub(crate) call: &'static str,
    /// Flags of the call.
    pub(crate) flags: u32,
    /// How often the device has written to it, if it is memory of the host.
    writes: Option<Arc<AtomicU64>>,
}

impl Block {
    /// How often the device has written to it, for memory that the program and copies share: pinned or registered.
    pub(crate) fn device_writes(&self) -> Option<u64> {
        let shared = matches!(self.kind, Kind::Pinned | Kind::Registered);
        self.writes.as_ref().filter(|_| shared).map(|writes| writes.load(Ordering::Relaxed))
    }
}

/// All blocks, by address.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    blocks: BTreeMap<u64, Block>,
    /// Bytes of device memory in use, on all devices.
    used: u64,
}

impl Memory {
    /// The block that holds an address.
    pub(crate) fn at(&self, address: u64) -> Option<(u64, &Block)> {
        let (&base, block) = self.blocks.range(..=address).next_back()?;
        (address - base < block.bytes).then_some((base, block))
    }

    /// The block that begins at an address.
    pub(crate) fn starting(&self, address: u64) -> Option<&Block> {
        self.blocks.get(&address)
    }

    /// The blocks of a context.
    pub(crate) fn of(&self, context: Handle) -> impl Iterator<Item = (u64, &Block)> {
        self.blocks
            .iter()
            .filter(move |(_, block)| block.context == context)
            .map(|(&base, block)| (base, block))
    }

    /// Whether an address of the host is one that kernels can use, so that the simulator sees copies to and from it.
    pub(crate) fn is_mapped(&self, address: HostAddress) -> bool {
        self.at(address.0 as u64).is_some_and(|(_, block)| !matches!(block.kind, Kind::Device(_)))
    }
}

/// Host memory that kernels can address.
#[derive(Debug)]
struct HostBlock {
    address: HostAddress,
    bytes: usize,
    /// How it was allocated; none if it belongs to the program.
    layout: Option<Layout>,
    writes: Arc<AtomicU64>,
}

/// Of the host's pages, as large as any.
const PAGE: usize = 4096;
/// Of the words in which the simulator accesses a block.
const WORD: usize = 4;

impl HostBlock {
    fn allocate(bytes: usize) -> Option<HostBlock> {
        let layout = Layout::from_size_align(bytes, PAGE).ok().filter(|layout| layout.size() > 0)?;
        // SAFETY: the layout's size is not zero.
        let address = unsafe { std::alloc::alloc_zeroed(layout) };
        (!address.is_null()).then_some(HostBlock {
            address: HostAddress(address.expose_provenance()),
            bytes,
            layout: Some(layout),
            writes: Arc::default(),
        })
    }
}

impl Drop for HostBlock {
    fn drop(&mut self) {
        if let Some(layout) = self.layout {
            let address = std::ptr::with_exposed_provenance_mut(self.address.0);
            // SAFETY: the memory was allocated in `allocate` with this layout, and is freed only here.
            unsafe { std::alloc::dealloc(address, layout) };
        }
    }
}

impl ExternalMemory for HostBlock {
    fn len(&self) -> u64 {
        self.bytes as u64
    }

    fn read(&self, offset: u64, to: &mut [u8]) {
        assert!(self.holds(offset, to.len()), "read outside a block of host memory");
        // The address is not null, the only thing that this refuses.
        let _ = self.address.offset(offset as usize).read(to);
    }

    fn write(&self, offset: u64, from: &[u8]) {
        assert!(self.holds(offset, from.len()), "write outside a block of host memory");
        self.writes.fetch_add(1, Ordering::Relaxed);
        let _ = self.address.offset(offset as usize).write(from);
    }
}

impl HostBlock {
    fn holds(&self, offset: u64, bytes: usize) -> bool {
        offset.checked_add(bytes as u64).is_some_and(|end| end <= self.bytes as u64)
    }
}

impl Driver {
    /// Allocates device memory in a context.
    pub(crate) fn allocate(
        &mut self,
        context: Handle,
        bytes: u64,
        pool: Option<Handle>,
        call: &'static str,
    ) -> Outcome<u64> {
        let gpu = self.gpu_of(context)?;
        if self.countdown.allocation_fails(&self.settings.faults, self.memory.used, bytes) {
            return Err(Status::OUT_OF_MEMORY);
        }
        let address = self.gpus[gpu].device.alloc(bytes).map_err(|error| match error {
            MemoryError::OutOfMemory { .. } => Status::OUT_OF_MEMORY,
            MemoryError::InvalidPointer { .. } => Status::INVALID_VALUE,
        })?;
        self.memory.used += bytes;
        let block = Block { bytes, kind: Kind::Device(gpu), context, pool, call, flags: 0, writes: None };
        self.memory.blocks.insert(address, block);
        self.count_in_pool(pool, bytes as i64);
        Ok(address)
    }

    /// Allocates host memory that kernels can address.
    pub(crate) fn allocate_host(
        &mut self,
        context: Handle,
        bytes: usize,
        kind: Kind,
        call: &'static str,
        flags: u32,
    ) -> Outcome<HostAddress> {
        let host = HostBlock::allocate(bytes).ok_or(Status::OUT_OF_MEMORY)?;
        self.map_host(context, host, kind, call, flags)
    }

    /// Makes the program's own memory addressable by kernels.
    pub(crate) fn register_host(
        &mut self,
        context: Handle,
        address: HostAddress,
        bytes: usize,
        flags: u32,
    ) -> Outcome {
        if address.0 == 0 || bytes == 0 || address.0.checked_add(bytes).is_none() {
            return Err(Status::INVALID_VALUE);
        }
        if !address.0.is_multiple_of(WORD) {
            let at = address.0;
            note(
                "cuMemHostRegister",
                &format!("{at:#x}: the simulator has registered memory from multiples of {WORD} on"),
            );
            return Err(Status::NOT_SUPPORTED);
        }
        let overlaps = |block: (&u64, &Block)| *block.0 + block.1.bytes > address.0 as u64;
        if self.memory.blocks.range(..(address.0 + bytes) as u64).next_back().is_some_and(overlaps) {
            return Err(Status::HOST_MEMORY_ALREADY_REGISTERED);
        }
        let host = HostBlock { address, bytes, layout: None, writes: Arc::default() };
        self.map_host(context, host, Kind::Registered, "cuMemHostRegister", flags).map(drop)
    }

    fn map_host(
        &mut self,
        context: Handle,
        host: HostBlock,
        kind: Kind,
        call: &'static str,
        flags: u32,
    ) -> Outcome<HostAddress> {
        let (address, bytes, writes) = (host.address, host.len(), host.writes.clone());
        let host: Arc<dyn ExternalMemory> = Arc::new(host);
        for gpu in &self.gpus {
            gpu.device.map(address.0 as u64, host.clone()).map_err(|error| {
                note(call, &error.to_string());
                Status::OUT_OF_MEMORY
            })?;
        }
        let block = Block { bytes, kind, context, pool: None, call, flags, writes: Some(writes) };
        self.memory.blocks.insert(address.0 as u64, block);
        Ok(address)
    }

    /// Gives a block back, of whatever kind.
    pub(crate) fn release(&mut self, address: u64) -> Outcome {
        let bytes = self.memory.starting(address).ok_or(Status::INVALID_VALUE)?.bytes;
        self.check_sources_in(address, bytes);
        let block = self.memory.blocks.remove(&address).ok_or(Status::INVALID_VALUE)?;
        let free = |device: &kiln_sim::device::Device| {
            device.free(address).map_err(|error| {
                note("freeing memory", &error.to_string());
                Status::INVALID_VALUE
            })
        };
        match block.kind {
            Kind::Device(gpu) => {
                self.memory.used -= block.bytes;
                self.count_in_pool(block.pool, -(block.bytes as i64));
                free(&self.gpus[gpu].device)
            }
            _ => self.gpus.iter().try_for_each(|gpu| free(&gpu.device)),
        }
    }

    /// Says what is wrong with an address that should be freed, if anything is.
    pub(crate) fn check_freeable(&self, call: &str, address: u64, wanted: impl Fn(Kind) -> bool) -> Outcome {
        let wrong = match (self.memory.starting(address), self.memory.at(address)) {
            (Some(block), _) if wanted(block.kind) => return Ok(()),
            (Some(block), _) => format!("{address:#x} is {}", block.kind.name()),
            (None, Some((base, _))) => format!("{address:#x} lies inside the block at {base:#x}"),
            (None, None) => format!("{address:#x} is not allocated, or was freed before"),
        };
        note(call, &wrong);
        Err(Status::INVALID_VALUE)
    }

    /// The GPU on which an operation of a context reaches an address.
    pub(crate) fn gpu_with(&self, address: u64, context: usize) -> usize {
        match self.memory.at(address) {
            Some((_, Block { kind: Kind::Device(gpu), .. })) => *gpu,
            Some(_) => context,
            // A module's variable, or an address outside everything, which the context's own GPU is to report.
            None => {
                let holds = |gpu: &crate::gpu::Gpu| gpu.device.allocation(address).is_some();
                self.gpus.iter().position(holds).unwrap_or(context)
            }
        }
    }
}
