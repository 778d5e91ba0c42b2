//! Structures that cross the border to C, with the layout of CUDA 12's headers. Handles and host pointers are
//! plain numbers here, and enumerations are integers: a C caller may put any bits there.

use crate::ffi::{HostAddress, In};
use crate::handle::Handle;

/// `CUmemorytype`: where one side of a copy lies.
pub(crate) const MEMORY_HOST: u32 = 1;
pub(crate) const MEMORY_DEVICE: u32 = 2;
pub(crate) const MEMORY_UNIFIED: u32 = 4;

/// `CUuuid`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Uuid(pub(crate) [u8; 16]);

/// `CUDA_MEMCPY2D`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Copy2d {
    pub(crate) source: Side2d,
    pub(crate) target: Side2d,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// One side of a `CUDA_MEMCPY2D`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Side2d {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) memory: u32,
    pub(crate) host: HostAddress,
    pub(crate) device: u64,
    pub(crate) array: Handle,
    pub(crate) pitch: usize,
}

/// `CUDA_MEMCPY3D` and `CUDA_MEMCPY3D_PEER`, which differ in the names of one field a side.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Copy3d {
    pub(crate) source: Side3d,
    pub(crate) target: Side3d,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) depth: usize,
}

/// One side of a `CUDA_MEMCPY3D`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Side3d {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) z: usize,
    pub(crate) level: usize,
    pub(crate) memory: u32,
    pub(crate) host: HostAddress,
    pub(crate) device: u64,
    pub(crate) array: Handle,
    pub(crate) context: Handle,
    pub(crate) pitch: usize,
    pub(crate) height: usize,
}

/// `CUctxCreateParams`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct ContextParams {
    pub(crate) affinity: usize,
    pub(crate) affinities: i32,
    pub(crate) graphics: usize,
}

/// `CUlaunchConfig`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct LaunchConfig {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
    pub(crate) stream: Handle,
    pub(crate) attributes: In<LaunchAttribute>,
    pub(crate) count: u32,
}

/// `CUlaunchAttribute`: what it is, and 64 bytes whose meaning depends on that.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct LaunchAttribute {
    pub(crate) id: u32,
    pub(crate) pad: u32,
    pub(crate) value: [u64; 8],
}

impl LaunchAttribute {
    /// The first three 32-bit words of the value, which hold all that the simulator reads.
    pub(crate) fn words(&self) -> [u32; 3] {
        [self.value[0] as u32, (self.value[0] >> 32) as u32, self.value[1] as u32]
    }
}

/// `CUDA_KERNEL_NODE_PARAMS` as CUDA 11 had it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct KernelNode {
    pub(crate) function: Handle,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
    pub(crate) params: In<HostAddress>,
    pub(crate) extra: In<usize>,
}

/// `CUDA_KERNEL_NODE_PARAMS` as CUDA 12 has it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct KernelNode2 {
    pub(crate) node: KernelNode,
    pub(crate) kernel: Handle,
    pub(crate) context: Handle,
}

/// `CUDA_MEMSET_NODE_PARAMS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct FillNode {
    pub(crate) target: u64,
    pub(crate) pitch: usize,
    pub(crate) value: u32,
    pub(crate) element: u32,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct HostNode {
    pub(crate) function: Option<extern "C" fn(usize)>,
    pub(crate) argument: usize,
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Instantiation {
    pub(crate) flags: u64,
    pub(crate) upload: Handle,
    pub(crate) error_node: Handle,
    pub(crate) result: i32,
}

/// `CUgraphExecUpdateResultInfo`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct UpdateResult {
    pub(crate) result: i32,
    pub(crate) error_node: Handle,
    pub(crate) error_from: Handle,
}

/// `CUmemLocation`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Location {
    pub(crate) kind: i32,
    pub(crate) id: i32,
}

/// `CUmemPoolProps`: 88 bytes, of which the simulator reads the first four words.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct PoolProperties {
    pub(crate) allocation: i32,
    pub(crate) handles: i32,
    pub(crate) location: Location,
    pub(crate) security: usize,
    pub(crate) reserved: [u64; 8],
}

/// `CUmemAccessDesc`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Access {
    pub(crate) location: Location,
    pub(crate) flags: i32,
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use cudarc::driver::sys;

    use super::*;

    #[test]
    fn sizes_are_those_of_the_headers() {
        assert_eq!(size_of::<Copy2d>(), size_of::<sys::CUDA_MEMCPY2D>());
        assert_eq!(size_of::<Copy3d>(), size_of::<sys::CUDA_MEMCPY3D>());
        assert_eq!(size_of::<Copy3d>(), size_of::<sys::CUDA_MEMCPY3D_PEER>());
        assert_eq!(size_of::<ContextParams>(), 24); // CUctxCreateParams: CUDA 12.5 brought it, the bindings here are 12.4's
        assert_eq!(size_of::<LaunchConfig>(), size_of::<sys::CUlaunchConfig>());
        assert_eq!(size_of::<LaunchAttribute>(), size_of::<sys::CUlaunchAttribute>());
        assert_eq!(size_of::<KernelNode2>(), size_of::<sys::CUDA_KERNEL_NODE_PARAMS>());
        assert_eq!(size_of::<FillNode>(), size_of::<sys::CUDA_MEMSET_NODE_PARAMS>());
        assert_eq!(size_of::<HostNode>(), size_of::<sys::CUDA_HOST_NODE_PARAMS>());
        assert_eq!(size_of::<Instantiation>(), size_of::<sys::CUDA_GRAPH_INSTANTIATE_PARAMS>());
        assert_eq!(size_of::<UpdateResult>(), size_of::<sys::CUgraphExecUpdateResultInfo>());
        assert_eq!(size_of::<Location>(), size_of::<sys::CUmemLocation>());
        assert_eq!(size_of::<PoolProperties>(), size_of::<sys::CUmemPoolProps>());
        assert_eq!(size_of::<Access>(), size_of::<sys::CUmemAccessDesc>());
        assert_eq!(size_of::<Uuid>(), size_of::<sys::CUuuid>());
    }

    #[test]
    fn fields_are_where_the_headers_have_them() {
        type C2 = sys::CUDA_MEMCPY2D;
        assert_eq!(offset_of!(Copy2d, source.device), offset_of!(C2, srcDevice));
        assert_eq!(offset_of!(Copy2d, target.memory), offset_of!(C2, dstMemoryType));
        assert_eq!(offset_of!(Copy2d, target.pitch), offset_of!(C2, dstPitch));
        assert_eq!(offset_of!(Copy2d, height), offset_of!(C2, Height));
        type C3 = sys::CUDA_MEMCPY3D;
        assert_eq!(offset_of!(Copy3d, source.level), offset_of!(C3, srcLOD));
        assert_eq!(offset_of!(Copy3d, source.height), offset_of!(C3, srcHeight));
        assert_eq!(offset_of!(Copy3d, target.device), offset_of!(C3, dstDevice));
        assert_eq!(offset_of!(Copy3d, depth), offset_of!(C3, Depth));
        type Peer = sys::CUDA_MEMCPY3D_PEER;
        assert_eq!(offset_of!(Copy3d, source.context), offset_of!(Peer, srcContext));
        assert_eq!(offset_of!(Copy3d, target.context), offset_of!(Peer, dstContext));
        type L = sys::CUlaunchConfig;
        assert_eq!(offset_of!(LaunchConfig, stream), offset_of!(L, hStream));
        assert_eq!(offset_of!(LaunchConfig, count), offset_of!(L, numAttrs));
        assert_eq!(offset_of!(LaunchAttribute, value), offset_of!(sys::CUlaunchAttribute, value));
        type K = sys::CUDA_KERNEL_NODE_PARAMS;
        assert_eq!(offset_of!(KernelNode2, node.params), offset_of!(K, kernelParams));
        assert_eq!(offset_of!(KernelNode2, context), offset_of!(K, ctx));
        type F = sys::CUDA_MEMSET_NODE_PARAMS;
        assert_eq!(offset_of!(FillNode, element), offset_of!(F, elementSize));
        assert_eq!(offset_of!(FillNode, height), offset_of!(F, height));
        type P = sys::CUmemPoolProps;
        assert_eq!(offset_of!(PoolProperties, location), offset_of!(P, location));
    }
}
