//! Matrix products by cuBLASLt: descriptors that live as long as they are used, and the choice of an algorithm by measurement.
//!
//! Matrices are column-major, as cuBLASLt has them: row-major (B, K) is K rows and B columns here. cudarc's own `CudaBlasLT`
//! takes the first algorithm that is proposed and knows no epilogue of a backward pass, hence the calls themselves.

#![allow(unsafe_code)] // cuBLASLt's calls

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::from_ref;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use cudarc::cublaslt::result;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t as Compute, cublasLtEpilogue_t as Lt,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulPreferenceAttributes_t as Preference,
    cudaDataType_t as Type,
};
use cudarc::driver::CudaSlice;

use crate::device::Device;

/// Memory that an algorithm may use: what NVIDIA recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Algorithms that are asked for, the best by cuBLASLt's estimate; they are all measured.
const PROPOSALS: usize = 8;
/// Runs of each that are measured, together, after one that is not.
const MEASURED_RUNS: usize = 5;

/// cuBLASLt on a device.
pub(crate) struct Library {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    /// What was chosen so far, by [`Spec::key`].
    chosen: RefCell<HashMap<String, sys::cublasLtMatmulAlgo_t>>,
}

impl Library {
    pub(crate) fn open(device: &Device) -> Result<Self> {
        // SAFETY: the library that is loaded is cuBLASLt, whose initialisation is sound.
        let present = unsafe { sys::is_culib_present() };
        ensure!(
            present,
            "libcublasLt.so (or .so.12) was not found: install cuBLAS, for instance by `pip install nvidia-cublas-cu12`, and put \
             its folder (site-packages/nvidia/cublas/lib) into LD_LIBRARY_PATH"
        );
        let workspace = device.zeros(WORKSPACE_BYTES)?;
        let handle = result::create_handle()
            .context("cublasLtCreate; is the driver as new as this cuBLAS needs, 580 for version 13?")?;
        Ok(Self { handle, workspace, chosen: RefCell::default() })
    }

    /// As `12.4.5`.
    pub(crate) fn version(&self) -> String {
        // SAFETY: the library is there.
        let version = unsafe { sys::cublasLtGetVersion() };
        format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: nobody else destroys it, and products, which use it, keep the library.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// How the products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Precision {
    /// float32 throughout
    F32,
    /// float32 in memory, products by TF32 tensor cores
    Tf32,
    /// bfloat16 operands; sums and the parameters that are trained in float32
    Bf16,
}

impl Precision {
    fn compute(self) -> Compute {
        match self {
            Precision::F32 | Precision::Bf16 => Compute::CUBLAS_COMPUTE_32F,
            Precision::Tf32 => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
        }
    }

    /// The type of the operands.
    pub(crate) fn operand(self) -> Element {
        match self {
            Precision::F32 | Precision::Tf32 => Element::F32,
            Precision::Bf16 => Element::Bf16,
        }
    }
}

/// The type of a matrix's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    Bf16,
}

impl Element {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 => 2,
        }
    }

    fn lt(self) -> Type {
        match self {
            Element::F32 => Type::CUDA_R_32F,
            Element::Bf16 => Type::CUDA_R_16BF,
        }
    }
}

/// A matrix on the device, column-major and packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) address: u64,
    pub(crate) element: Element,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Which bits of a ReLU were on: a bit for each row, columns a multiple of 128 bits apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask {
    pub(crate) address: u64,
}

impl Mask {
    /// Bits from one column to the next.
    pub(crate) fn stride(rows: usize) -> usize {
        rows.next_multiple_of(128)
    }
}

/// What cuBLASLt does with a product on its way to memory. Vectors have an element for each row of the result, and its type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Epilogue {
    None,
    Bias {
        bias: u64,
    },
    ReluBias {
        bias: u64,
    },
    /// ReLU of product and bias; writes the mask.
    ReluAuxBias {
        bias: u64,
        mask: Mask,
    },
    /// The product where the mask is on; writes the sums of its rows.
    DreluBgrad {
        sums: u64,
        mask: Mask,
    },
    /// The product; writes the sums of B's columns as the product takes it, one for each column of the result.
    Bgradb {
        sums: u64,
    },
}

impl Epilogue {
    fn parts(self) -> (Lt, Option<u64>, Option<Mask>) {
        match self {
            Epilogue::None => (Lt::CUBLASLT_EPILOGUE_DEFAULT, None, None),
            Epilogue::Bias { bias } => (Lt::CUBLASLT_EPILOGUE_BIAS, Some(bias), None),
            Epilogue::ReluBias { bias } => (Lt::CUBLASLT_EPILOGUE_RELU_BIAS, Some(bias), None),
            Epilogue::ReluAuxBias { bias, mask } => {
                (Lt::CUBLASLT_EPILOGUE_RELU_AUX_BIAS, Some(bias), Some(mask))
            }
            Epilogue::DreluBgrad { sums, mask } => {
                (Lt::CUBLASLT_EPILOGUE_DRELU_BGRAD, Some(sums), Some(mask))
            }
            Epilogue::Bgradb { sums } => (Lt::CUBLASLT_EPILOGUE_BGRADB, Some(sums), None),
        }
    }
}

/// D = epilogue(op(A) op(B) + beta D).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) precision: Precision,
    pub(crate) a: Matrix,
    pub(crate) transpose_a: bool,
    pub(crate) b: Matrix,
    pub(crate) transpose_b: bool,
    pub(crate) d: Matrix,
    pub(crate) beta: f32,
    pub(crate) epilogue: Epilogue,
}

impl Spec {
    /// The same for products that differ in addresses alone.
    fn key(&self) -> String {
        format!("{self}, {}, {}, {:?}", self.transpose_a, self.transpose_b, self.d.element)
    }
}

/// As `cublasLtMatmul: (4096 x 784) (784 x 8192), CUBLASLT_EPILOGUE_RELU_AUX_BIAS, Bf16`.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = if self.transpose_a { self.a.rows } else { self.a.columns };
        let (rows, columns) = (self.d.rows, self.d.columns);
        let (epilogue, precision) = (self.epilogue.parts().0, self.precision);
        write!(f, "cublasLtMatmul: ({rows} x {inner}) ({inner} x {columns}), {epilogue:?}, {precision:?}")
    }
}

/// A product whose descriptors are made and whose algorithm is chosen.
pub(crate) struct Product {
    library: Rc<Library>,
    spec: Spec,
    descriptor: Descriptor,
    a: Layout,
    b: Layout,
    d: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Product {
    /// Measures the algorithms that cuBLASLt proposes and takes the fastest, once for all products of a form. Computes on the way,
    /// so D changes.
    ///
    /// # Errors
    /// Where cuBLASLt has no algorithm for it.
    pub(crate) fn new(device: &Device, library: &Rc<Library>, spec: Spec) -> Result<Self> {
        let descriptor = Descriptor::new(&spec)?;
        let (a, b, d) = (Layout::new(spec.a)?, Layout::new(spec.b)?, Layout::new(spec.d)?);
        let algorithm = sys::cublasLtMatmulAlgo_t { data: [0; 8] };
        let mut product = Self { library: library.clone(), spec, descriptor, a, b, d, algorithm };
        let known = library.chosen.borrow().get(&spec.key()).copied();
        product.algorithm = match known {
            Some(algorithm) => algorithm,
            None => product.choose(device).with_context(|| spec.to_string())?,
        };
        library.chosen.borrow_mut().insert(spec.key(), product.algorithm);
        product.submit(device)?;
        Ok(product)
    }

    /// The fastest of what cuBLASLt proposes.
    fn choose(&mut self, device: &Device) -> Result<sys::cublasLtMatmulAlgo_t> {
        let mut best: Option<(f32, sys::cublasLtMatmulAlgo_t)> = None;
        let mut refused = None;
        for algorithm in proposals(&self.library, &self.descriptor, [&self.a, &self.b, &self.d])? {
            self.algorithm = algorithm;
            match self.measure(device) {
                Ok(time) if best.is_none_or(|(least, _)| time < least) => best = Some((time, algorithm)),
                Ok(_) => (),
                Err(error) => refused = Some(error),
            }
        }
        match (best, refused) {
            (Some((_, algorithm)), _) => Ok(algorithm),
            (None, Some(error)) => Err(error),
            (None, None) => bail!("cuBLASLt proposes no algorithm"),
        }
    }

    /// Milliseconds of the measured runs: captured, so that it is not the host that is measured.
    fn measure(&self, device: &Device) -> Result<f32> {
        self.submit(device)?;
        let graph = device.capture(|| (0..MEASURED_RUNS).try_for_each(|_| self.submit(device)))?;
        device.timed(|| Ok(graph.launch()?))
    }

    /// Gives the product to the device.
    pub(crate) fn submit(&self, device: &Device) -> Result<()> {
        let Spec { a, b, d, beta, .. } = self.spec;
        let alpha = 1.0f32;
        // SAFETY: descriptor, layouts and library live; `alpha` and `beta` are float32 on the host, as the descriptor says; the
        // addresses are of memory that `Net` keeps and that is as large as the layouts say; the workspace is as large as is said,
        // and all that uses it is on one stream.
        unsafe {
            result::matmul(
                self.library.handle,
                self.descriptor.0,
                from_ref(&alpha).cast(),
                from_ref(&beta).cast(),
                a.address as *const c_void,
                self.a.0,
                b.address as *const c_void,
                self.b.0,
                d.address as *const c_void,
                self.d.0,
                d.address as *mut c_void,
                self.d.0,
                &self.algorithm,
                device.address(&self.library.workspace) as *mut c_void,
                WORKSPACE_BYTES,
                device.stream.cu_stream().cast(),
            )
        }
        .with_context(|| self.spec.to_string())
    }
}

/// What cuBLASLt proposes for a product.
fn proposals(
    library: &Library,
    descriptor: &Descriptor,
    [a, b, d]: [&Layout; 3],
) -> Result<Vec<sys::cublasLtMatmulAlgo_t>> {
    let preference = Limits::new()?;
    let mut found = [MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit(); PROPOSALS];
    let mut count = 0;
    // SAFETY: all handles live, and there is room for as many results as are asked for.
    let status = unsafe {
        sys::cublasLtMatmulAlgoGetHeuristic(
            library.handle,
            descriptor.0,
            a.0,
            b.0,
            d.0,
            d.0,
            preference.0,
            PROPOSALS as i32,
            found.as_mut_ptr().cast(),
            &mut count,
        )
    };
    status.result().context("cublasLtMatmulAlgoGetHeuristic")?;
    // SAFETY: so many were written.
    let found = found[..count as usize].iter().map(|result| unsafe { result.assume_init() });
    Ok(found
        .filter(|result| result.state.result().is_ok() && result.workspaceSize <= WORKSPACE_BYTES)
        .map(|result| result.algo)
        .collect())
}

/// A `cublasLtMatmulDesc_t`.
struct Descriptor(sys::cublasLtMatmulDesc_t);

impl Descriptor {
    fn new(spec: &Spec) -> Result<Self> {
        let made = Self(result::create_matmul_desc(spec.precision.compute(), Type::CUDA_R_32F)?);
        let operation = |transpose: bool| i32::from(transpose); // cublasOperation_t
        made.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, operation(spec.transpose_a))?;
        made.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, operation(spec.transpose_b))?;
        let (epilogue, vector, mask) = spec.epilogue.parts();
        made.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue as u32)?;
        // Before the algorithms are asked for: they depend on the alignment of these.
        if let Some(address) = vector {
            made.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, address)?;
        }
        if let Some(mask) = mask {
            made.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, mask.address)?;
            let stride = Mask::stride(spec.d.rows) as i64;
            made.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, stride)?;
        }
        Ok(made)
    }

    fn set<T: Copy>(&self, attribute: Attribute, value: T) -> Result<()> {
        // SAFETY: the descriptor lives; the library checks the size of the value.
        unsafe {
            result::set_matmul_desc_attribute(self.0, attribute, from_ref(&value).cast(), size_of::<T>())
        }
        .with_context(|| format!("{attribute:?}"))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: nobody else destroys it.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// A `cublasLtMatrixLayout_t`.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(matrix: Matrix) -> Result<Self> {
        let (rows, columns) = (matrix.rows as u64, matrix.columns as u64);
        Ok(Self(result::create_matrix_layout(matrix.element.lt(), rows, columns, rows as i64)?))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: nobody else destroys it.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// A `cublasLtMatmulPreference_t` that allows the workspace. What else it says, alignments of 256 bytes, holds here.
struct Limits(sys::cublasLtMatmulPreference_t);

impl Limits {
    fn new() -> Result<Self> {
        let made = Self(result::create_matmul_pref()?);
        let attribute = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let bytes = WORKSPACE_BYTES as u64;
        // SAFETY: the preference lives; the library checks the size of the value.
        unsafe {
            result::set_matmul_pref_attribute(made.0, attribute, from_ref(&bytes).cast(), size_of::<u64>())
        }?;
        Ok(made)
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        // SAFETY: nobody else destroys it.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
