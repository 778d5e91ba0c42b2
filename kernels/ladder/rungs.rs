// The rungs, and the sizes that a launch of one has, for those who make one: the test in `crates/kiln-engine` and the bench in `benches`.

/// A kernel of the ladder.
pub(crate) struct Rung {
    pub(crate) name: &'static str,
    pub(crate) ptx: &'static str,
    pub(crate) kernel: &'static str,
    /// Blocks of its cluster.
    pub(crate) blocks: u32,
    /// Batches that it has room for.
    pub(crate) slots: u32,
    pub(crate) mbarriers: u32,
    /// What the bytes of a row are a multiple of.
    row_bytes: u32,
}

macro_rules! rung {
    ($name:literal, $kernel:literal, $blocks:literal, $slots:literal, $mbarriers:literal, $row_bytes:literal) => {
        Rung {
            name: $name,
            ptx: include_str!(concat!("ptx/", $name, ".ptx")),
            kernel: $kernel,
            blocks: $blocks,
            slots: $slots,
            mbarriers: $mbarriers,
            row_bytes: $row_bytes,
        }
    };
}

pub(crate) const RUNGS: [Rung; 4] = [
    rung!("1_single_block", "ladder_single_block", 1, 1, 0, 1),
    rung!("2_cluster_sync", "ladder_cluster_sync", 8, 1, 0, 1),
    rung!("3_messages", "ladder_messages", 8, 1, 2, 1),
    rung!("4_multicast", "ladder_multicast", 8, 2, 4, 16),
];

/// Threads of a block.
pub(crate) const THREADS: u32 = 128;

impl Rung {
    /// Bytes from one row of pixels to the next.
    pub(crate) fn pitch(&self, k: u32) -> u32 {
        k.next_multiple_of(self.row_bytes)
    }

    /// Pixels (samples, K) as the rung wants them. The padding holds something, so that who takes it for pixels is found.
    pub(crate) fn padded(&self, pixels: &[u8], k: u32) -> Vec<u8> {
        let (width, pitch) = (k as usize, self.pitch(k) as usize);
        let mut padded = vec![255; pixels.len() / width * pitch];
        for (row, pixels) in padded.chunks_mut(pitch).zip(pixels.chunks(width)) {
            row[..width].copy_from_slice(pixels);
        }
        padded
    }

    /// Dynamic shared memory of a block, as the rung's head comment has it, for K inputs, H hidden units and C classes.
    pub(crate) fn shared_bytes(&self, [k, h, c]: [u32; 3], batch: u32) -> u32 {
        let (units, owned, cp) =
            (h.div_ceil(self.blocks), batch.div_ceil(self.blocks), c.next_multiple_of(4));
        let tensors = [units * k, units, units * cp, cp];
        let mut floats = [tensors, tensors].concat();
        floats.extend([batch * units, batch * units, batch * cp]);
        if self.blocks > 1 {
            floats.extend([self.blocks * owned * cp, owned * cp]);
        }
        let bytes = floats.iter().map(|count| 4 * count);
        let others = [self.slots * batch * self.pitch(k), 8 * self.mbarriers];
        bytes.chain(others).map(|piece| piece.next_multiple_of(16)).sum()
    }
}

/// Values of an arena of parameters, or of their velocities: where w1 (H, K), b1 (H), w2 (C, H) and b2 (C) lie, each from a multiple of
/// four values on, and where the last ends.
pub(crate) fn arena([k, h, c]: [u32; 3]) -> ([std::ops::Range<usize>; 4], usize) {
    let mut next = 0;
    let places = [h * k, h, c * h, c].map(|len| {
        let place = next..next + len as usize;
        next += len.next_multiple_of(4) as usize;
        place
    });
    (places, next)
}
