//! How many blocks fit on a multiprocessor, as `cuda_occupancy.h` of the CUDA toolkit counts.

use kiln_sim::device::KernelInfo;

use crate::arch::{Limits, REGISTERS, SHARED_RESERVED, WARP};

/// Registers are given to warps in steps of this many.
const REGISTER_STEP: u32 = 256;
/// Parts of a multiprocessor, each with its own share of the registers; a warp has all its registers in one of them.
const PARTITIONS: u32 = 4;
/// Shared memory is given to blocks in steps of this many bytes.
const SHARED_STEP: u32 = 128;

/// Registers that a warp takes.
fn registers_of_a_warp(each: u32) -> u32 {
    (each * WARP).next_multiple_of(REGISTER_STEP)
}

/// Registers that a block of `threads` is taken to need when it is launched: as if its warps filled all partitions alike.
pub(crate) fn registers(each: u32, threads: u32) -> u32 {
    registers_of_a_warp(each) * threads.div_ceil(WARP).next_multiple_of(PARTITIONS)
}

/// Blocks of `warps` for which the registers of a multiprocessor suffice.
fn by_registers(each: u32, warps: u32) -> u32 {
    if registers(each, warps * WARP) > REGISTERS {
        return 0;
    }
    let in_a_partition = REGISTERS / PARTITIONS / registers_of_a_warp(each).max(1);
    in_a_partition * PARTITIONS / warps
}

/// Bytes of shared memory that a block takes, with what the system keeps.
fn shared(info: &KernelInfo, dynamic: u32) -> u32 {
    info.shared_bytes.saturating_add(dynamic).saturating_add(SHARED_RESERVED).next_multiple_of(SHARED_STEP)
}

/// Blocks of `threads` that one multiprocessor holds at once.
pub(crate) fn blocks(limits: &Limits, info: &KernelInfo, threads: u32, dynamic: u32) -> u32 {
    if threads == 0
        || threads > info.max_threads
        || info.shared_bytes.saturating_add(dynamic) > limits.shared_optin
    {
        return 0;
    }
    let warps = threads.div_ceil(WARP);
    let by_warps = limits.threads_per_multiprocessor / WARP / warps;
    let by_shared = limits.shared_per_multiprocessor / shared(info, dynamic);
    limits.blocks_per_multiprocessor.min(by_warps).min(by_registers(info.registers, warps)).min(by_shared)
}

/// Bytes of dynamic shared memory that each of `blocks` blocks on a multiprocessor can have; none if they do not fit
/// without any.
pub(crate) fn dynamic_shared(limits: &Limits, info: &KernelInfo, count: u32, threads: u32) -> Option<u32> {
    if count == 0 || blocks(limits, info, threads, 0) < count {
        return None;
    }
    let each = limits.shared_per_multiprocessor / count / SHARED_STEP * SHARED_STEP;
    let most = limits.shared_optin.min(each.saturating_sub(SHARED_RESERVED));
    Some(most.saturating_sub(info.shared_bytes))
}

/// The block size that keeps most threads resident, the largest of equals, and the grid that fills the device.
/// `dynamic` gives the bytes of dynamic shared memory for a block size.
pub(crate) fn best(
    limits: &Limits,
    info: &KernelInfo,
    most: u32,
    dynamic: impl Fn(u32) -> u32,
) -> (u32, u32) {
    let most = if most == 0 { info.max_threads } else { most.min(info.max_threads) };
    let resident = |threads: u32| threads * blocks(limits, info, threads, dynamic(threads));
    let sizes = (1..=most.div_ceil(WARP)).map(|warps| (warps * WARP).min(most));
    // `max_by_key` gives the last of equals.
    let threads = sizes.max_by_key(|&threads| resident(threads)).unwrap_or(0);
    let grid = blocks(limits, info, threads, dynamic(threads)) * limits.multiprocessors as u32;
    (grid, threads)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_sim::arch::Arch;

    use super::*;
    use crate::arch::limits;

    fn kernel(registers: u32, shared_bytes: u32) -> KernelInfo {
        KernelInfo {
            required_threads: None,
            name: Arc::from("test"),
            params: Vec::new(),
            shared_bytes,
            const_bytes: 0,
            local_bytes: 0,
            registers,
            max_threads: 1024,
            cluster: None,
            ptx_version: 84,
        }
    }

    #[test]
    fn each_resource_limits() {
        let h100 = limits(Arch::Sm90);
        assert_eq!(blocks(&h100, &kernel(16, 0), 1024, 0), 2); // threads
        assert_eq!(blocks(&h100, &kernel(16, 0), 32, 0), 32); // blocks
        assert_eq!(blocks(&h100, &kernel(128, 0), 256, 0), 2); // registers
        assert_eq!(blocks(&h100, &kernel(16, 100 << 10), 32, 0), 2); // shared memory
        assert_eq!(blocks(&h100, &kernel(16, 0), 32, 228 << 10), 0);
        assert_eq!(blocks(&h100, &kernel(16, 0), 1025, 0), 0);
    }

    #[test]
    fn registers_are_given_out_by_partition() {
        let h100 = limits(Arch::Sm90);
        // 1280 registers a warp: 12 warps in each of four partitions, not 51 in all.
        assert_eq!(blocks(&h100, &kernel(40, 0), 3 * 32, 0), 16);
        // 5376 a warp: three in a partition, so that 13 warps do not fit where 12 do.
        assert_eq!(blocks(&h100, &kernel(168, 0), 12 * 32, 0), 1);
        assert_eq!(blocks(&h100, &kernel(168, 0), 13 * 32, 0), 0);
    }

    #[test]
    fn available_shared_memory_is_what_still_fits() {
        let h100 = limits(Arch::Sm90);
        let info = kernel(16, 1000);
        for count in [1, 2, 3, 7, 32] {
            let bytes = dynamic_shared(&h100, &info, count, 32).unwrap();
            assert!(blocks(&h100, &info, 32, bytes) >= count, "{count}");
            assert!(blocks(&h100, &info, 32, bytes + SHARED_STEP) < count, "{count}");
        }
        assert_eq!(dynamic_shared(&h100, &info, 33, 32), None);
    }

    #[test]
    fn the_best_block_fills_a_multiprocessor() {
        let h100 = limits(Arch::Sm90);
        assert_eq!(best(&h100, &kernel(16, 0), 0, |_| 0), (2 * 132, 1024));
        // 16 blocks of 100 threads or 21 of 96 would leave room; 32 of 64 fill it.
        assert_eq!(best(&h100, &kernel(16, 0), 100, |_| 0), (32 * 132, 64));
    }
}
