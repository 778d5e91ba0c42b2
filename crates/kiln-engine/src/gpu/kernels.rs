//! The embedded PTX, the kernels in it, and what all launches share.

#![allow(unsafe_code)] // the launch itself

use std::collections::HashMap;
use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::{from_ref, null_mut};
use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::{self, CUfunction_attribute_enum as Attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DeviceRepr, DriverError};
use rayon::prelude::*;

use super::copies::Format;
use super::modules::{Entry, Module, entries};
use super::{Gpu, Region, fault};
use crate::{Error, Precision};

/// How the blocks that train one run on the resident engine work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Team {
    /// A thread-block cluster, which sends messages from one shared memory to another: sm_90 and newer.
    Cluster,
    /// Blocks of a cooperative grid, which exchange by global memory: sm_80 and newer.
    Grid,
}

impl std::fmt::Display for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Team::Cluster => "cluster",
            Team::Grid => "grid",
        })
    }
}

macro_rules! module {
    ($($name:literal),+) => {
        (concat!($($name),+), include_str!(concat!("../../../../kernels/ptx/", $($name,)+ ".ptx")))
    };
}

/// The module of a family for a precision.
macro_rules! of_precision {
    ($precision:expr, $family:literal) => {
        match $precision {
            Precision::F32 => module!($family, "_f32"),
            Precision::Tf32 => module!($family, "_tf32"),
            Precision::Bf16 => module!($family, "_bf16"),
        }
    };
}

/// Modules that every precision needs.
const COMMON: [Module; 4] = [module!("epoch"), module!("mse"), module!("optimizer"), module!("softmax_loss")];

/// The modules of a precision.
fn products(precision: Precision) -> [Module; 3] {
    [
        of_precision!(precision, "head"),
        of_precision!(precision, "linear"),
        of_precision!(precision, "weight_gradients"),
    ]
}

/// The modules of products of copies.
pub(crate) fn copies_modules(format: Format) -> [Module; 3] {
    match format {
        Format::Bf16 => {
            [module!("copies_bf16"), module!("linear_copies_bf16"), module!("weight_gradient_copies_bf16")]
        }
        Format::Tf32 => {
            [module!("copies_tf32"), module!("linear_copies_tf32"), module!("weight_gradient_copies_tf32")]
        }
        Format::Bf16x3 => [
            module!("copies_bf16x3"),
            module!("linear_copies_bf16x3"),
            module!("weight_gradient_copies_bf16x3"),
        ],
    }
}

/// The modules of products of copies that warpgroups make: for sm_90 alone. Copies in TF32 have none.
pub(crate) fn warpgroup_modules(format: Format) -> &'static [Module] {
    match format {
        Format::Bf16 => &[module!("linear_warpgroups_bf16"), module!("weight_gradient_warpgroups_bf16")],
        Format::Tf32 => &[],
        Format::Bf16x3 => {
            &[module!("linear_warpgroups_bf16x3"), module!("weight_gradient_warpgroups_bf16x3")]
        }
    }
}

/// What the inputs of a model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputForm {
    /// Whole numbers 0..=255, which stand for 1/255 each.
    Pixels,
    Floats,
}

/// The modules that the `resident` engine needs beside those of its precision.
pub(crate) fn resident_modules(
    team: Team,
    precision: Precision,
    form: InputForm,
    timed: bool,
) -> [Module; 2] {
    let training = match (team, form, timed) {
        (Team::Cluster, InputForm::Pixels, false) => of_precision!(precision, "resident_pixels"),
        (Team::Cluster, InputForm::Pixels, true) => of_precision!(precision, "resident_pixels_timed"),
        (Team::Cluster, InputForm::Floats, false) => of_precision!(precision, "resident_floats"),
        (Team::Cluster, InputForm::Floats, true) => of_precision!(precision, "resident_floats_timed"),
        (Team::Grid, InputForm::Pixels, false) => of_precision!(precision, "resident_grid_pixels"),
        (Team::Grid, InputForm::Pixels, true) => of_precision!(precision, "resident_grid_pixels_timed"),
        (Team::Grid, InputForm::Floats, false) => of_precision!(precision, "resident_grid_floats"),
        (Team::Grid, InputForm::Floats, true) => of_precision!(precision, "resident_grid_floats_timed"),
    };
    [module!("rows"), training]
}

/// Those of both forms, with and without timers.
pub(super) fn all_resident_modules(team: Team, precision: Precision) -> impl Iterator<Item = [Module; 2]> {
    let forms = [InputForm::Pixels, InputForm::Floats].into_iter();
    forms.flat_map(move |form| [false, true].map(|timed| resident_modules(team, precision, form, timed)))
}

/// All modules that a precision needs.
pub(super) fn modules(precision: Precision) -> Vec<Module> {
    COMMON.into_iter().chain(products(precision)).collect()
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Param {
    /// A number or an address, under PTX's name.
    Number(&'static str),
    /// A structure of so many bytes.
    Bytes(usize),
}

/// A kernel, and the types of its parameters as its PTX declares them.
#[derive(Clone)]
struct Kernel {
    entry: Entry,
    params: Vec<Param>,
    /// From its first use on.
    function: OnceLock<CudaFunction>,
}

/// The kernels of some modules in a context, each loaded when it is first used. A driver refuses that while a stream captures: see
/// [`Gpu::rehearse`].
#[derive(Clone)]
pub(crate) struct Kernels {
    context: Arc<CudaContext>,
    by_name: HashMap<&'static str, Kernel>,
}

impl Kernels {
    pub(super) fn new(context: &Arc<CudaContext>, modules: &[Module]) -> Self {
        let mut kernels = Self { context: context.clone(), by_name: HashMap::new() };
        kernels.add(modules);
        kernels
    }

    /// The kernels of more modules; those that are there already stay as they are.
    pub(super) fn add(&mut self, modules: &[Module]) {
        for entry in modules.iter().flat_map(|&module| entries(module)) {
            self.by_name.entry(entry.name).or_insert_with(|| {
                let params = entry.params().split(',').filter_map(param).collect();
                Kernel { entry, params, function: OnceLock::new() }
            });
        }
    }

    /// Loads them all, on all threads, since a driver that compiles one uses one; how many there are.
    pub(super) fn load_all(&self) -> Result<usize, Error> {
        let kernels: Vec<&Kernel> = self.by_name.values().collect();
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|error| Error::Threads { threads, reason: error.to_string() })?;
        pool.install(|| kernels.into_par_iter().try_for_each(|kernel| self.loaded(kernel).map(drop)))?;
        Ok(self.by_name.len())
    }

    /// Loads one.
    pub(super) fn load(&self, name: &str) -> Result<(), Error> {
        self.loaded(self.get(name)).map(drop)
    }

    /// Names of those that are loaded, sorted.
    #[cfg(test)]
    pub(crate) fn names_loaded(&self) -> Vec<&'static str> {
        let loaded = self.by_name.values().filter(|kernel| kernel.function.get().is_some());
        let mut names: Vec<_> = loaded.map(|kernel| kernel.entry.name).collect();
        names.sort_unstable();
        names
    }

    fn loaded<'k>(&self, kernel: &'k Kernel) -> Result<&'k CudaFunction, Error> {
        match kernel.function.get() {
            Some(function) => Ok(function),
            None => {
                let function = kernel.entry.load(&self.context)?;
                Ok(kernel.function.get_or_init(|| function))
            }
        }
    }

    fn get(&self, name: &str) -> &Kernel {
        self.by_name.get(name).unwrap_or_else(|| panic!("{name} is no kernel of the embedded PTX"))
    }
}

/// The type of a parameter that PTX declares: `.param .u32 name` or `.param .align 8 .b8 name[64]`.
fn param(declared: &'static str) -> Option<Param> {
    let declared = declared.trim().strip_prefix(".param .")?;
    match declared.strip_suffix(']') {
        Some(array) => Some(Param::Bytes(array.rsplit_once('[')?.1.parse().ok()?)),
        None => Some(Param::Number(declared.split_whitespace().next()?)),
    }
}

/// A type that a kernel takes, under PTX's name.
pub(super) trait Number: DeviceRepr {
    const TYPE: &'static str;
}

impl Number for u32 {
    const TYPE: &'static str = "u32";
}

impl Number for u64 {
    const TYPE: &'static str = "u64";
}

impl Number for f32 {
    const TYPE: &'static str = "f32";
}

/// What a kernel takes as a structure.
///
/// # Safety
/// It is laid out as the kernel has it, and what it names by address lives until the launch is submitted and has as many values as the
/// kernel [`needs`](Launch::needs).
pub(super) unsafe trait Structure: Copy {}

/// Sizes of a linear layer and of a batch: B rows, K inputs, N outputs. For a loss, N are the classes C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dims {
    pub(crate) b: u32,
    pub(crate) k: u32,
    pub(crate) n: u32,
}

/// Where a batch stands in its epoch: rows `order[(step + slot) * batch ..][..B]`, with `step` in device memory.
#[derive(Clone, Copy)]
pub(crate) struct Position<'b> {
    /// The samples of the epoch, each below their number.
    pub(crate) order: Region<'b, u32>,
    /// (1): steps done when the captured launches begin. With `slot` and `batch` it must name rows that `order` has.
    pub(crate) step: Region<'b, u32>,
    /// Step among those that are captured together.
    pub(crate) slot: u32,
    /// Rows from one batch to the next.
    pub(crate) batch: u32,
}

/// Whether a grid has blocks enough for the multiprocessors.
pub(super) fn fills(gpu: &Gpu, (x, y, _): (u32, u32, u32)) -> bool {
    let share = 100 * u128::from(x) * u128::from(y);
    share >= u128::from(gpu.choices.tile_blocks_percent) * u128::from(gpu.multiprocessors)
}

/// Which tile a product is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tile {
    /// Of `linear.cuh` alone.
    Tiny,
    Small,
    Large,
}

impl Tile {
    /// Sides of the large tile, in every family.
    pub(super) const LARGE: (u32, u32) = (64, 64);

    /// The large tile where it still gives the multiprocessors blocks enough, for a product of rows x columns.
    pub(super) fn pick(gpu: &Gpu, rows: u32, columns: u32) -> Self {
        if fills(gpu, grid(Self::LARGE, rows, columns)) { Tile::Large } else { Tile::Small }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Tile::Tiny => "tiny",
            Tile::Small => "small",
            Tile::Large => "large",
        }
    }
}

/// The grid for a product of tiles with these sides: tiles along the first dimension, which may be of any size, and along the second.
pub(super) fn grid(sides: (u32, u32), first: u32, second: u32) -> (u32, u32, u32) {
    (first.div_ceil(sides.0), second.div_ceil(sides.1), 1)
}

/// Threads of a block of kernels whose threads take values a grid apart, and the most blocks a multiprocessor that such a launch
/// has: further values take another turn.
pub(super) const STRIDING_THREADS: u32 = 256;
const STRIDING_BLOCKS_MAX: u64 = 8;

/// The grid of such a kernel for so many values.
pub(super) fn striding_grid(gpu: &Gpu, values: u64) -> (u32, u32, u32) {
    let most = (u64::from(gpu.multiprocessors) * STRIDING_BLOCKS_MAX).min(u64::from(u32::MAX));
    (values.div_ceil(u64::from(STRIDING_THREADS)).min(most) as u32, 1, 1)
}

/// Blocks that work together, and the shared memory that each has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) team: Team,
    pub(crate) blocks: u32,
    /// Dynamic shared memory of a block.
    pub(crate) shared_bytes: u32,
}

/// Lets blocks of a kernel have so many bytes of dynamic shared memory.
fn allow_shared(function: &CudaFunction, bytes: u32) -> Result<(), DriverError> {
    function.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes as i32)
}

/// Blocks of a cluster that every device with clusters takes; more are the kernel's wish and the device's choice.
const PORTABLE_BLOCKS: u32 = 8;

impl Group {
    /// Asks for it on a kernel's behalf.
    fn allow(self, function: &CudaFunction) -> Result<(), DriverError> {
        allow_shared(function, self.shared_bytes)?;
        if self.team == Team::Grid {
            return Ok(());
        }
        let large = i32::from(self.blocks > PORTABLE_BLOCKS);
        function.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, large)
    }

    /// Calls `f` with the configuration of a launch.
    fn configured<T>(
        self,
        stream: &CudaStream,
        grid: (u32, u32, u32),
        threads: u32,
        f: impl FnOnce(&sys::CUlaunchConfig) -> T,
    ) -> T {
        let dim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: self.blocks, y: 1, z: 1 };
        let (id, value) = match self.team {
            Team::Cluster => (
                sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                sys::CUlaunchAttributeValue { clusterDim: dim },
            ),
            Team::Grid => (
                sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE,
                sys::CUlaunchAttributeValue { cooperative: 1 },
            ),
        };
        let mut attribute = sys::CUlaunchAttribute { id, pad: [0; 4], value };
        f(&sys::CUlaunchConfig {
            gridDimX: grid.0,
            gridDimY: grid.1,
            gridDimZ: grid.2,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared_bytes,
            hStream: stream.cu_stream(),
            attrs: &mut attribute,
            numAttrs: 1,
        })
    }

    /// How many such groups of a kernel the device holds at once: none where it cannot place even one.
    pub(super) fn active(self, gpu: &Gpu, name: &str, threads: u32) -> Result<u32, Error> {
        let failed = |error| fault(&format!("asking for groups of {} blocks of {name}", self.blocks), error);
        let function = gpu.kernels.loaded(gpu.kernels.get(name))?;
        match self.allow(function) {
            Err(error) if is_refusal(error) => return Ok(0),
            allowed => allowed.map_err(failed)?,
        }
        if self.team == Team::Grid {
            let cooperative = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH;
            if gpu.stream.context().attribute(cooperative).map_err(failed)? == 0 {
                return Ok(0);
            }
            let shared_bytes = self.shared_bytes as usize;
            let blocks = function
                .occupancy_max_active_blocks_per_multiprocessor(threads, shared_bytes, None)
                .map_err(failed)?;
            return Ok(blocks * gpu.multiprocessors / self.blocks);
        }
        let mut clusters = 0;
        let asked = self.configured(&gpu.stream, (self.blocks, 1, 1), threads, |config| {
            // SAFETY: `clusters` and `config`, with the attribute it points to, live during the call.
            unsafe { sys::cuOccupancyMaxActiveClusters(&mut clusters, function.cu_function(), config) }
                .result()
        });
        match asked {
            Ok(()) => Ok(clusters.max(0) as u32),
            Err(error) if is_refusal(error) => Ok(0),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Whether a driver says that it has no such groups: more blocks than any cluster has, or an attribute that the device does not know.
fn is_refusal(DriverError(error): DriverError) -> bool {
    use CUresult::{CUDA_ERROR_INVALID_CLUSTER_SIZE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED};
    [CUDA_ERROR_INVALID_CLUSTER_SIZE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED].contains(&error)
}

/// Blocks that a grid may have along x.
const GRID_X_MAX: u32 = i32::MAX as u32;
/// Blocks that a grid may have along y: 4,194,240 outputs of a layer, in large tiles.
const GRID_Y_MAX: u32 = 65_535;

/// A launch in the making: kernel, arguments, and the checks that its safety rests on.
pub(super) struct Launch<'a> {
    name: &'a str,
    dims: Dims,
    kernels: &'a Kernels,
    kernel: &'a Kernel,
    /// Addresses of the arguments, which live as long as the launch.
    arguments: Vec<*mut c_void>,
    pushed: Vec<Param>,
    /// Dynamic shared memory of a block that belongs to no group.
    shared_bytes: u32,
    group: Option<Group>,
    wrong: Option<String>,
    stream: &'a Arc<CudaStream>,
    waits: bool,
    /// Whether it is not to reach the device.
    rehearsed: bool,
}

impl<'a> Launch<'a> {
    pub(super) fn new(gpu: &'a Gpu, name: &'a str, dims: Dims) -> Self {
        let (kernels, kernel) = (&*gpu.kernels, gpu.kernels.get(name));
        let (stream, waits, rehearsed) = (&gpu.stream, gpu.waits, gpu.rehearses.get());
        let (arguments, pushed) = (Vec::new(), Vec::new());
        let (shared_bytes, group) = (0, None);
        let launch = Self {
            name,
            dims,
            kernels,
            kernel,
            arguments,
            pushed,
            shared_bytes,
            group,
            wrong: None,
            stream,
            waits,
            rehearsed,
        };
        launch.sized(dims)
    }

    /// The kernel's name.
    pub(super) fn name(&self) -> &str {
        self.name
    }

    /// Demands that there is something of every dimension.
    pub(super) fn sized(mut self, Dims { b, k, n }: Dims) -> Self {
        if b == 0 || k == 0 || n == 0 {
            self.wrong.get_or_insert_with(|| "every dimension is at least 1".to_owned());
        }
        self
    }

    /// Demands at least `needed` values of a buffer that a structure names.
    pub(super) fn needs<T>(mut self, region: &Region<'_, T>, needed: usize) -> Self {
        if region.len() < needed {
            self.wrong.get_or_insert_with(|| format!("a buffer of {}, expected {needed}", region.len()));
        }
        self
    }

    fn push<T>(mut self, param: Param, value: &'a T) -> Self {
        self.pushed.push(param);
        self.arguments.push(from_ref(value).cast_mut().cast());
        self
    }

    /// The next parameter: a pointer to at least `needed` values.
    pub(super) fn pointer<T>(self, region: &'a Region<'_, T>, needed: usize) -> Self {
        self.needs(region, needed).push(Param::Number("u64"), region.address())
    }

    /// The next parameter: a number.
    pub(super) fn number<T: Number>(self, value: &'a T) -> Self {
        self.push(Param::Number(T::TYPE), value)
    }

    /// The next parameter: a structure.
    pub(super) fn structure<T: Structure>(self, value: &'a T) -> Self {
        self.push(Param::Bytes(size_of::<T>()), value)
    }

    /// The next parameters: order, step, slot, batch.
    pub(super) fn position(self, position: &'a Position<'_>) -> Self {
        let rows = (position.slot as usize) * position.batch as usize + self.dims.b as usize;
        self.pointer(&position.order, rows)
            .pointer(&position.step, 1)
            .number(&position.slot)
            .number(&position.batch)
    }

    /// The last parameters of a product: B, K, N.
    pub(super) fn dims(self, dims: &'a Dims) -> Self {
        self.number(&dims.b).number(&dims.k).number(&dims.n)
    }

    /// A block has so many bytes of dynamic shared memory.
    pub(super) fn shared(mut self, bytes: u32) -> Self {
        self.shared_bytes = bytes;
        self
    }

    /// Its blocks work together.
    pub(super) fn group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// Submits it, and waits for it where the device's kernels are waited for. In a rehearsal it is checked alone.
    ///
    /// # Errors
    /// [`Error::Gpu`] where the kernel cannot be loaded; the same with the kernel's name and dimensions, where parameters are not the kernel's, a buffer is too small or
    /// the driver refuses.
    pub(super) fn submit(mut self, grid: (u32, u32, u32), threads: u32) -> Result<(), Error> {
        let Dims { b, k, n } = self.dims;
        let what = |doing: &str| format!("{doing} {} with B {b}, K {k}, N {n}", self.name);
        for (axis, blocks, most) in [("x", grid.0, GRID_X_MAX), ("y", grid.1, GRID_Y_MAX)] {
            if blocks > most {
                self.wrong
                    .get_or_insert_with(|| format!("{blocks} blocks along {axis}, expected at most {most}"));
            }
        }
        if self.pushed != self.kernel.params {
            self.wrong = Some(format!("parameters {:?}, expected {:?}", self.pushed, self.kernel.params));
        }
        if let Some(reason) = self.wrong {
            return Err(Error::Gpu { what: what("launching"), reason });
        }
        let function = self.kernels.loaded(self.kernel)?;
        if self.rehearsed {
            return Ok(());
        }
        self.launch(function, grid, threads).map_err(|error| fault(&what("launching"), error))?;
        match self.waits {
            true => self.stream.synchronize().map_err(|error| fault(&what("running"), error)),
            false => Ok(()),
        }
    }

    fn launch(
        &self,
        function: &CudaFunction,
        grid: (u32, u32, u32),
        threads: u32,
    ) -> Result<(), DriverError> {
        self.stream.context().bind_to_thread()?;
        let (handle, arguments) = (function.cu_function(), self.arguments.as_ptr().cast_mut());
        let Some(group) = self.group else {
            if self.shared_bytes > 0 {
                allow_shared(function, self.shared_bytes)?;
            }
            // SAFETY: the parameters are of the types that the PTX declares, in number and order, as `submit` has checked; every
            // pointer, in a structure too, is to device memory that lives (`Region` borrows it) and has as many values as the
            // wrapper has checked;
            // rows that a position names exist, as its fields promise; the arguments, borrowed for 'a, outlive this call,
            // which copies them and changes nothing.
            return unsafe {
                let (x, y, z) = grid;
                let (shared, stream) = (self.shared_bytes, self.stream.cu_stream());
                sys::cuLaunchKernel(handle, x, y, z, threads, 1, 1, shared, stream, arguments, null_mut())
            }
            .result();
        };
        group.allow(function)?;
        group.configured(self.stream, grid, threads, |config| {
            // SAFETY: as above; the configuration, with the attribute it points to, lives during the call.
            unsafe { sys::cuLaunchKernelEx(config, handle, arguments, null_mut()) }.result()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::tests::all_modules;

    /// The table of the compiler's side, which is read by other eyes than those of `Kernels`.
    #[test]
    fn parameters_are_those_of_the_table() {
        let table = include_str!("../../../../kernels/ptx/abi.tsv");
        let rows: HashMap<_, _> = table
            .lines()
            .filter_map(|row| row.split('\t').collect::<Vec<_>>().try_into().ok())
            .map(|[module, kernel, params]: [&str; 3]| ((module, kernel), params.to_owned()))
            .collect();
        let mut found = 0;
        for entry in all_modules().flat_map(entries) {
            let typed = |param: Param| match param {
                Param::Number(name) => name.to_owned(),
                Param::Bytes(bytes) => format!("b8[{bytes}]"),
            };
            let params: Vec<_> = entry.params().split(',').filter_map(param).map(typed).collect();
            assert_eq!(rows[&(entry.module(), entry.name)], params.join(" "), "{}", entry.name);
            found += 1;
        }
        assert!(found >= rows.len() - 1, "{found} kernels, {} rows with the head", rows.len());
    }

    /// Every kernel that a precision names is in its PTX: a wrapper's choice cannot miss.
    #[test]
    fn precisions_have_the_same_kernels() {
        let names = |precision| -> Vec<Vec<&str>> {
            let of = |module| entries(module).map(|entry| entry.name);
            products(precision).map(|module| of(module).collect()).into()
        };
        let expected = names(Precision::F32);
        assert_eq!(expected.iter().map(Vec::len).collect::<Vec<_>>(), [3, 21, 16]);
        assert_eq!(names(Precision::Tf32), expected);
        assert_eq!(names(Precision::Bf16), expected);
        let names = |format, own: &str| {
            let of = |module| entries(module).map(|entry| entry.name.replace(own, "")).collect();
            copies_modules(format).map(of)
        };
        let expected: [Vec<String>; 3] = names(Format::Bf16, "_bf16");
        assert_eq!(expected.each_ref().map(Vec::len), [4, 9, 12]);
        assert_eq!(names(Format::Tf32, "_tf32"), expected);
        assert_eq!(names(Format::Bf16x3, "_bf16x3"), expected);

        // Of one tile, those of warpgroups are the same, whatever their tile.
        let names = |module, tile: &str| -> Vec<String> {
            entries(module).filter_map(|entry| Some(entry.name.strip_suffix(tile)?.to_owned())).collect()
        };
        for format in [Format::Bf16, Format::Bf16x3] {
            let [_, products @ ..] = copies_modules(format).map(|module| names(module, "_128"));
            for tile in ["_warpgroups_128", "_warpgroups_256"] {
                let found: Vec<_> =
                    warpgroup_modules(format).iter().map(|&module| names(module, tile)).collect();
                assert_eq!(found, products, "{tile}");
            }
        }
    }
}
