//! Device memory and the windows of the address space.

mod allocation;
mod global;

pub(crate) use allocation::Allocation;
pub use allocation::ExternalMemory;
pub use global::MemoryError;
pub(crate) use global::{GlobalMemory, Owner};

/// Generic addresses of shared memory: the low 32 bits are an address in `shared::cluster`.
pub(crate) const SHARED_WINDOW: u64 = 0x000b_0000_0000_0000;
/// Generic addresses of local memory.
pub(crate) const LOCAL_WINDOW: u64 = 0x000c_0000_0000_0000;
/// Generic addresses of kernel parameters.
pub(crate) const PARAM_WINDOW: u64 = 0x000d_0000_0000_0000;
/// Addresses of a device start here, at a distance of [`DEVICE_STEP`] for each device. No process has memory there.
pub(crate) const DEVICE_BASE: u64 = 0x000a_0000_0000_0000;
pub(crate) const DEVICE_STEP: u64 = 1 << 44;
/// In `shared::cluster` addresses, block `r` of the cluster starts at `(r + 1) << RANK_SHIFT`; below is the thread's own.
pub(crate) const RANK_SHIFT: u32 = 24;

/// The window that a generic address is in: its base, or none for global memory.
pub(crate) fn window(address: u64) -> Option<u64> {
    let base = address & !0xffff_ffff;
    [SHARED_WINDOW, LOCAL_WINDOW, PARAM_WINDOW].into_iter().find(|window| *window == base)
}
