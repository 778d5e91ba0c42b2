//! Where a matrix descriptor says that a matrix lies in shared memory.
//!
//! Bits 0 to 13 are the address, 16 to 29 the leading and 32 to 45 the stride dimension's offset, all in units of 16 bytes; 49 to 51
//! the base offset, 62 and 63 the swizzle (PTX ISA, "Matrix Descriptor Format"). A chunk is 16 bytes; a pattern is a number of
//! chunks, 1, 2, 4 or 8, that a line of a matrix has in one place, and the chunks of a line are permuted by bits of their address.

/// A matrix descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    start: u32,
    leading: u32,
    stride: u32,
    /// Chunks of a line of the pattern.
    chunks: u32,
}

/// Bytes of a chunk.
const CHUNK: u32 = 16;
/// Bits that mean nothing.
const RESERVED: u64 = 0x3ff1_c000_c000_c000;

impl Descriptor {
    /// Or what is wrong with it.
    pub(super) fn new(bits: u64) -> Result<Descriptor, String> {
        let field = |at: u32| (bits >> at & 0x3fff) as u32 * CHUNK;
        if bits & RESERVED != 0 {
            return Err(format!("a matrix descriptor {bits:#018x}: expected no bits in {RESERVED:#018x}"));
        }
        if bits >> 49 & 7 != 0 {
            return Err("a matrix descriptor with a base offset, which the simulator does not model".into());
        }
        let chunks = [1, 8, 4, 2][(bits >> 62) as usize];
        let found = Descriptor { start: field(0), leading: field(16), stride: field(32), chunks };
        // The bits of the address that permute: in them a pattern begins with zeros.
        if found.start >> 7 & (chunks - 1) != 0 {
            let bytes = 128 * chunks;
            return Err(format!(
                "a matrix at {:#x}, swizzled by {} bytes: expected a pattern that begins at a multiple of {bytes}",
                found.start,
                CHUNK * chunks
            ));
        }
        Ok(found)
    }

    /// Where a chunk of terms (0 or 1) of a line (row of a, column of b) lies, where terms lie along the lines.
    pub(super) fn along(self, line: u32, chunk: u32) -> u32 {
        let terms = if self.chunks == 1 { chunk * self.leading } else { chunk * CHUNK };
        self.swizzled(line % 8 * CHUNK * self.chunks + line / 8 * self.stride + terms)
    }

    /// Where a chunk of lines lies for one term, where terms lie across the lines.
    pub(super) fn across(self, chunk: u32, term: u32) -> u32 {
        let (within, group) = (chunk % self.chunks, chunk / self.chunks);
        let (of_group, of_terms) =
            if self.chunks == 1 { (self.stride, self.leading) } else { (self.leading, self.stride) };
        self.swizzled(
            within * CHUNK + group * of_group + term % 8 * CHUNK * self.chunks + term / 8 * of_terms,
        )
    }

    fn swizzled(self, offset: u32) -> u32 {
        let at = self.start + offset;
        at ^ ((at >> 7 & (self.chunks - 1)) * CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(start: u64, leading: u64, stride: u64, swizzle: u64) -> Descriptor {
        Descriptor::new(start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | swizzle << 62).unwrap()
    }

    /// The core matrices of CUTLASS's canonical layouts (`mma_traits_sm90_gmma.hpp`), without swizzle.
    #[test]
    fn core_matrices_are_eight_lines_of_a_chunk() {
        let along = descriptor(0x400, 0x80, 0x100, 0);
        assert_eq!(
            [(0, 0), (1, 0), (0, 1), (8, 0), (9, 1)].map(|(line, chunk)| along.along(line, chunk)),
            [0x400, 0x410, 0x480, 0x500, 0x590]
        );
        let across = descriptor(0x400, 0x80, 0x100, 0);
        assert_eq!(
            [(0, 0), (0, 1), (0, 8), (1, 0), (3, 9)].map(|(chunk, term)| across.across(chunk, term)),
            [0x400, 0x410, 0x480, 0x500, 0x790]
        );
    }

    #[test]
    fn swizzles_permute_the_chunks_of_a_line() {
        // 128 bytes: the line number, modulo 8, is added without carries to the chunk's.
        let all = descriptor(0x800, 0, 0x400, 1);
        for line in 0..16 {
            for chunk in 0..2 {
                let expected = 0x800 + line / 8 * 0x400 + line % 8 * 128 + (chunk ^ (line % 8)) * 16;
                assert_eq!(all.along(line, chunk), expected);
            }
        }
        // The next 16 terms begin 32 bytes further on, and stay in the pattern.
        let next = descriptor(0x820, 0, 0x400, 1);
        assert_eq!(next.along(1, 1), 0x800 + 128 + (3 ^ 1) * 16);
        // 64 bytes: two lines a 128 bytes; 32 bytes: four.
        assert_eq!(descriptor(0x200, 0, 0x200, 2).along(5, 1), 0x200 + 5 * 64 + (1 ^ 2) * 16);
        assert_eq!(descriptor(0x100, 0, 0x100, 3).along(5, 0), 0x100 + 5 * 32 + 16);
        // Across: 64 lines of a 16-bit type in a row of the pattern, then the leading offset.
        let across = descriptor(0, 0x2000, 0x400, 1);
        assert_eq!(across.across(9, 10), 0x2000 + 0x400 + 2 * 128 + (1 ^ 2) * 16);
    }

    #[test]
    fn what_means_nothing_or_is_not_modelled_is_refused() {
        let refused = |bits: u64| Descriptor::new(bits).unwrap_err();
        assert!(refused(1 << 14).contains("no bits"));
        assert!(refused(1 << 49).contains("base offset"));
        assert!(refused(0x80 >> 4 | 1 << 62).contains("multiple of 1024"));
        assert!(refused(0x100 >> 4 | 2 << 62).contains("multiple of 512"));
        assert!(Descriptor::new(0x100 >> 4 | 3 << 62).is_ok());
    }
}
