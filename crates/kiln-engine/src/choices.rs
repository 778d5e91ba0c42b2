//! What the graph engine chooses by.

/// Borders between kernels of the graph engine that come to the same but for rounding, or to the same bits. They decide about speed
/// alone.
///
/// The defaults are guesses, which `benches/choices.rs` measures: for benchmarks, and for whoever knows a GPU better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choices {
    /// Most products of a batch (rows, inputs and outputs, these in groups of 16) whose last layer and loss are one kernel. Its rows
    /// each read all weights anew, from the first-level cache.
    pub head_products_max: u64,
    /// Weights of a layer above which a model is trained on rounded copies of its operands, in `bf16` and `tf32`.
    pub copied_weights_max: usize,
    /// The same in `f32`, whose copies are not rounded: they are three planes of bfloat16 each, for tensor cores. `None`: 2^20 where those
    /// multiply bfloat16 more than 12 times as fast as others multiply float32 (sm_80, sm_90, sm_100 and sm_103), since a product takes
    /// six of theirs, three of pixels; elsewhere no model is.
    pub copied_f32_weights_max: Option<usize>,
    /// Columns of the widest tile that warpgroups multiply, on copies in `bf16` and `f32`, where the device is of sm_90: 256, or 128;
    /// below that none does.
    pub warpgroup_columns_max: u32,
    /// Blocks that a product of larger tiles must have, in percent of the multiprocessors; one that has fewer is made of smaller tiles.
    pub tile_blocks_percent: u32,
    /// Steps that are captured in one graph, and replayed by one launch; at least 1.
    pub captured_steps: usize,
}

impl Choices {
    /// `copied_f32_weights_max` where tensor cores are fast enough. In f32 copies take more memory, not less, and pay where a batch has
    /// many products.
    pub(crate) const FAST_F32_WEIGHTS_MAX: usize = 1 << 20;

    /// As [`Default`] has it.
    pub(crate) const DEFAULT: Self = Self {
        head_products_max: 1 << 27,
        copied_weights_max: 1 << 18,
        copied_f32_weights_max: None,
        warpgroup_columns_max: 256,
        tile_blocks_percent: 100,
        captured_steps: 16,
    };
}

impl Default for Choices {
    fn default() -> Self {
        Self::DEFAULT
    }
}
