//! What each simulated GPU is: limits and device attributes.
//!
//! The figures are those of one product of each architecture, from the CUDA programming guide's table of
//! compute capabilities and the product's own `cuDeviceGetAttribute`. Limits that decide whether a launch is
//! accepted are exact; clocks and bandwidths are there because programs print them. A feature that the
//! simulator does not have (textures, virtual memory management, tensor maps) is answered with zero.

use kiln_sim::arch::Arch;

/// One architecture's figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Compute capability, major and minor.
    pub(crate) capability: (i32, i32),
    /// Streaming multiprocessors.
    pub(crate) multiprocessors: i32,
    /// Bytes of shared memory of a multiprocessor.
    pub(crate) shared_per_multiprocessor: u32,
    /// Bytes of shared memory that a block may have if its kernel asks for them.
    pub(crate) shared_optin: u32,
    /// Threads resident on a multiprocessor.
    pub(crate) threads_per_multiprocessor: u32,
    /// Blocks resident on a multiprocessor.
    pub(crate) blocks_per_multiprocessor: u32,
    /// Blocks in a cluster: in general, and if the kernel allows non-portable sizes. (1, 1) without clusters.
    pub(crate) cluster: (u32, u32),
    /// Bytes of level-2 cache.
    l2: i32,
    /// Kilohertz: processors, memory.
    clocks: (i32, i32),
    /// Bits of the memory bus.
    bus: i32,
    /// How many times faster float32 is than float64.
    double_ratio: i32,
}

/// Threads in a block, in a warp; bytes of shared memory of a block that does not ask for more, and that the
/// system keeps of each block; registers of a block and of a multiprocessor; bytes of constant memory.
pub(crate) const MAX_THREADS: u32 = 1024;
pub(crate) const WARP: u32 = 32;
pub(crate) const SHARED_PER_BLOCK: u32 = 48 << 10;
pub(crate) const SHARED_RESERVED: u32 = 1 << 10;
pub(crate) const REGISTERS: u32 = 64 << 10;
const CONSTANT: i32 = 64 << 10;
/// Largest block and grid, by dimension.
pub(crate) const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
pub(crate) const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];

/// The figures of an architecture: A100, RTX 3090, RTX 4090, H100 SXM, B200, RTX 5090.
pub(crate) fn limits(arch: Arch) -> Limits {
    let (major, minor) = arch.capability();
    let most = arch.cluster_max_blocks();
    Limits {
        capability: (major as i32, minor as i32),
        shared_optin: arch.shared_max_bytes(),
        // Clusters of 8 blocks run on any GPU that has clusters.
        cluster: (most.min(8), most),
        ..product(arch)
    }
}

fn product(arch: Arch) -> Limits {
    let data_centre = Limits {
        capability: (0, 0),
        multiprocessors: 108,
        shared_per_multiprocessor: 164 << 10,
        shared_optin: 0,
        threads_per_multiprocessor: 2048,
        blocks_per_multiprocessor: 32,
        cluster: (1, 1),
        l2: 40 << 20,
        clocks: (1_410_000, 1_215_000),
        bus: 5120,
        double_ratio: 2,
    };
    let desktop = Limits {
        multiprocessors: 82,
        shared_per_multiprocessor: 100 << 10,
        threads_per_multiprocessor: 1536,
        blocks_per_multiprocessor: 16,
        l2: 6 << 20,
        clocks: (1_695_000, 9_751_000),
        bus: 384,
        double_ratio: 64,
        ..data_centre
    };
    let hopper = Limits {
        multiprocessors: 132,
        shared_per_multiprocessor: 228 << 10,
        l2: 50 << 20,
        clocks: (1_980_000, 2_619_000),
        ..data_centre
    };
    match arch {
        Arch::Sm80 => data_centre,
        Arch::Sm86 => desktop,
        Arch::Sm89 => Limits {
            multiprocessors: 128,
            blocks_per_multiprocessor: 24,
            l2: 72 << 20,
            clocks: (2_520_000, 10_501_000),
            ..desktop
        },
        Arch::Sm90 => hopper,
        Arch::Sm100 => Limits {
            multiprocessors: 148,
            l2: 126 << 20,
            clocks: (1_965_000, 3_996_000),
            bus: 8192,
            ..hopper
        },
        Arch::Sm120 => Limits {
            multiprocessors: 170,
            blocks_per_multiprocessor: 24,
            l2: 96 << 20,
            clocks: (2_407_000, 14_001_000),
            bus: 512,
            ..desktop
        },
    }
}

impl Limits {
    /// The value of a `CUdevice_attribute` of the `ordinal`-th device; none for a number that CUDA 13 does not
    /// know.
    pub(crate) fn attribute(&self, attribute: i32, ordinal: usize) -> Option<i32> {
        let clusters = i32::from(self.cluster.0 > 1);
        Some(match attribute {
            1 => MAX_THREADS as i32,
            2..=4 => MAX_BLOCK[(attribute - 2) as usize] as i32,
            5..=7 => MAX_GRID[(attribute - 5) as usize] as i32,
            8 => SHARED_PER_BLOCK as i32,
            9 => CONSTANT,
            10 => WARP as i32,
            11 => i32::MAX,              // largest pitch
            12 | 82 => REGISTERS as i32, // of a block, of a multiprocessor
            13 => self.clocks.0,
            14 | 30 => 512,                   // texture, surface alignment
            15 | 19 | 31 | 41 | 78..=80 => 1, // overlap, mapped host memory, concurrent kernels, unified
            16 => self.multiprocessors,       // addressing, stream priorities, L1 caches
            33 => ordinal as i32 + 1,         // PCI bus
            36 => self.clocks.1,
            37 => self.bus,
            38 => self.l2,
            39 => self.threads_per_multiprocessor as i32,
            40 => 2,  // copy engines
            51 => 32, // texture pitch alignment
            75 => self.capability.0,
            76 => self.capability.1,
            81 => self.shared_per_multiprocessor as i32,
            83 | 89 | 90 | 91 | 95 | 99 | 115 => 1, // managed memory, with concurrent access, preemption,
            87 => self.double_ratio, // registered host pointers, cooperative launch, registering
            97 => self.shared_optin as i32, // host memory, memory pools
            106 => self.blocks_per_multiprocessor as i32,
            108 => self.l2 / 4 * 3, // persisting L2
            109 => 128 << 20,       // access policy window
            111 => SHARED_RESERVED as i32,
            120 => clusters,
            126 => 1,        // memory synchronisation domains
            131 | 134 => -1, // NUMA nodes: none
            17..=162 => 0,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_is_its_own() {
        for (arch, capability, cluster) in [
            (Arch::Sm80, (8, 0), 0),
            (Arch::Sm86, (8, 6), 0),
            (Arch::Sm89, (8, 9), 0),
            (Arch::Sm90, (9, 0), 1),
            (Arch::Sm100, (10, 0), 1),
            (Arch::Sm120, (12, 0), 1),
        ] {
            let limits = limits(arch);
            assert_eq!(
                (limits.attribute(75, 0), limits.attribute(76, 0)),
                (Some(capability.0), Some(capability.1))
            );
            assert_eq!(limits.attribute(120, 0), Some(cluster));
            assert!(limits.shared_optin + SHARED_RESERVED <= limits.shared_per_multiprocessor);
        }
    }

    #[test]
    fn unknown_attributes_are_unknown() {
        for attribute in [-1, 0, 163, i32::MAX] {
            assert_eq!(limits(Arch::Sm90).attribute(attribute, 0), None);
        }
    }
}
