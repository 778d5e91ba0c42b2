// What blocks of a cluster tell each other with: mbarriers, stores that announce themselves, bulk copies. Addresses are 32-bit
// addresses of shared memory; those of other blocks come from `in_block`.
//
// What is sent counts on the mbarrier beside it, in the receiver's shared memory, by bytes: the receiver announces how many
// it expects of a phase (`arm`, one of its arrivals) and waits for the phase to complete. Bytes and other arrivals may come
// before they are announced, but not before the phase before is complete.
//
// Bytes that come tell the receiver of themselves alone. That the sender has read what the receiver will overwrite next must be
// told by an arrival of its own (`tell`), which makes known all that its thread has done or heard of. It costs a fence of the
// whole GPU, some hundreds of cycles: it is for a warp that has nothing else to do.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ u32 cluster_blocks() {
    u32 blocks;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
    return blocks;
}

// All threads of all blocks meet; what each has written before, all see after.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Where this address of shared memory lies in the block of another rank.
__device__ __forceinline__ u32 in_block(u32 address, u32 rank) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

__device__ __forceinline__ void mbarrier_init(u32 mbarrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(mbarrier), "r"(arrivals) : "memory");
}

// Makes the mbarriers that this thread has made known to the other blocks and to the engine of the bulk copies, with the next
// `cluster_sync`.
__device__ __forceinline__ void mbarrier_inits_done() {
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}

// Announces the bytes of the phase that is open.
__device__ __forceinline__ void arm(u32 mbarrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(mbarrier), "r"(bytes) : "memory");
}

// Arrives at an mbarrier of some block, and makes known there what this thread has done or heard of.
__device__ __forceinline__ void tell(u32 mbarrier_there) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(mbarrier_there) : "memory");
}

#define KILN_WAIT(name, scope)                                                                                    \
    __device__ __forceinline__ void name(u32 mbarrier, u32 parity) {                                              \
        u32 done;                                                                                                 \
        do {                                                                                                      \
            asm volatile(                                                                                         \
                "{\n\t"                                                                                           \
                ".reg .pred p;\n\t"                                                                               \
                "mbarrier.try_wait.parity.acquire." scope ".shared::cta.b64 p, [%1], %2;\n\t"                     \
                "selp.b32 %0, 1, 0, p;\n\t"                                                                       \
                "}"                                                                                               \
                : "=r"(done)                                                                                      \
                : "r"(mbarrier), "r"(parity)                                                                      \
                : "memory");                                                                                      \
        } while (!done);                                                                                          \
    }

// Waits until the phase of this parity is complete; what bulk copies brought with it is there then.
KILN_WAIT(wait_for_copy, "cta")
// The same; what other blocks sent with it, or told, is known then.
KILN_WAIT(wait, "cluster")

// Sends 16 bytes to a place in some block, announced on the mbarrier there.
__device__ __forceinline__ void send(u32 there, float4 value, u32 mbarrier_there) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(there),
                 "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w), "r"(mbarrier_there)
                 : "memory");
}

// Copies a multiple of 16 bytes from global memory into this block's shared memory.
__device__ __forceinline__ void bulk_copy(u32 to, const void* from, u32 bytes, u32 mbarrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(mbarrier)
                 : "memory");
}

// The same into the same place of every block in the mask, announced on the mbarrier of each.
__device__ __forceinline__ void bulk_copy_to_all(u32 to, const void* from, u32 bytes, u32 mbarrier, u32 mask) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
        "l"(from), "r"(bytes), "r"(mbarrier), "h"((unsigned short)mask)
        : "memory");
}
