//! The one door to the `gemm` crate, whose interface is raw pointers: shapes are checked, then it is called.
#![allow(unsafe_code)]

use gemm::Parallelism;

/// A read-only matrix in a slice: element (row, col) is at `row * row_stride + col * col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// A (rows, cols) matrix, stored by rows that lie `stride` values apart.
    ///
    /// # Panics
    /// Where the slice does not hold it: a bug of the caller, never of the input.
    pub(crate) fn by_rows(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(cols <= stride && span(rows, cols, stride) <= data.len(), "matrix outside its slice");
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The same values with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// `dst = keep dst + scale a b`, where `dst` is (a.rows, b.cols) by rows that lie `stride` values apart.
/// With `keep` zero the old `dst` is not read. One thread; the order of summation depends on the shapes alone.
///
/// # Panics
/// Where shapes do not fit: a bug of the caller, never of the input.
pub(crate) fn matmul(dst: &mut [f32], stride: usize, keep: f32, scale: f32, a: View<'_>, b: View<'_>) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    assert!(b.cols <= stride && span(a.rows, b.cols, stride) <= dst.len(), "product outside its slice");
    // gemm's kernels run along columns that are contiguous, so it is given the transposed problem.
    let (m, n, k) = (b.cols, a.rows, a.cols);
    // SAFETY: both constructors of a view and the assertion above keep every index of the three matrices inside
    // their slices, also after transposition; `dst` is borrowed mutably, so that it overlaps neither; strides of
    // matrices in memory fit an isize; float32 has no invalid values.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            stride as isize,
            1,
            keep != 0.0,
            b.data.as_ptr(),
            b.row_stride as isize,
            b.col_stride as isize,
            a.data.as_ptr(),
            a.row_stride as isize,
            a.col_stride as isize,
            keep,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// How many values a matrix spans from its first to its last.
fn span(rows: usize, cols: usize, stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers make every order of summation exact, so that any indexing slip shows.
    #[test]
    fn integer_products_are_exact_for_odd_shapes_and_strides() {
        let value = |i: usize| ((i * 37 + 11) % 17) as f32 - 8.0;
        for (m, k, n) in [(1, 1, 1), (1, 7, 1), (3, 1, 5), (2, 2, 2), (13, 29, 17), (65, 33, 64), (5, 300, 1)]
        {
            let (a_stride, b_stride, c_stride) = (k + 3, n + 1, n + 2);
            let a: Vec<f32> = (0..m * a_stride).map(value).collect();
            let b: Vec<f32> = (0..k * b_stride).map(value).collect();
            let old: Vec<f32> = (0..m * c_stride).map(value).collect();
            for (keep, scale) in [(0.0, 1.0), (1.0, 1.0), (2.0, -1.0)] {
                let (mut c, mut by_transpose) = (old.clone(), old.clone());
                let (av, bv) = (View::by_rows(&a, m, k, a_stride), View::by_rows(&b, k, n, b_stride));
                matmul(&mut c, c_stride, keep, scale, av, bv);
                let bt: Vec<f32> = (0..n * k).map(|i| b[i % k * b_stride + i / k]).collect();
                let bt = View::by_rows(&bt, n, k, k).transposed();
                matmul(&mut by_transpose, c_stride, keep, scale, av, bt);
                for i in 0..m * c_stride {
                    let (row, col) = (i / c_stride, i % c_stride);
                    let sum: f32 =
                        (0..k).map(|j| a[row * a_stride + j] * b[j * b_stride + col.min(n - 1)]).sum();
                    let expected = if col < n { keep * old[i] + scale * sum } else { old[i] };
                    assert_eq!((c[i], by_transpose[i]), (expected, expected), "{m}x{k}x{n} at {row},{col}");
                }
            }
        }
    }
}
