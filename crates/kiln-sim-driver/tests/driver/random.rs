//! Calls in no sensible order, with handles live and gone, of the right kind and of another: whatever happens is the
//! program's fault, never a bug of the simulator, a crash or a hang.

use std::ffi::c_void;
use std::ptr::{null_mut, without_provenance_mut};

use cudarc::driver::sys::{self, CUresult, CUstreamCaptureMode as Mode};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::child::Program;
use crate::program::KERNELS;

const STEPS: usize = 5000;

/// What is given out.
#[derive(Clone, Copy)]
enum Kind {
    Context,
    Stream,
    Event,
    Memory,
    Host,
    Module,
    Function,
    Graph,
    Exec,
}
use Kind::{Context, Event, Exec, Function, Graph, Host, Memory, Module, Stream};

const KINDS: [Kind; 9] = [Context, Stream, Event, Memory, Host, Module, Function, Graph, Exec];

struct Chaos {
    random: SmallRng,
    /// All that calls have given out, whether it lives or not.
    seen: [Vec<usize>; KINDS.len()],
    /// How many calls of each sort succeeded: making, ending, working.
    succeeded: [usize; 3],
    read: Vec<u8>,
}

extern "C" fn nothing(_: *mut c_void) {}

impl Chaos {
    /// Something of a kind that was given out of late; or of another kind, or made up.
    fn any<T>(&mut self, kind: Kind) -> *mut T {
        let made_up = [0, 1, 2, 3, 0x7fff_0000_1000, usize::MAX];
        let kind = if self.random.random_ratio(9, 10) { kind } else { KINDS[self.random.random_range(0..9)] };
        let seen = &self.seen[kind as usize];
        let back = self.random.random_range(0..made_up.len());
        without_provenance_mut(seen.len().checked_sub(back + 1).map_or(made_up[back], |at| seen[at]))
    }

    fn address(&mut self) -> u64 {
        self.any::<u8>(Memory).addr() as u64
    }

    fn size(&mut self) -> usize {
        [0, 4, 4, 63, 256, 4096, usize::MAX / 2, usize::MAX][self.random.random_range(0..8)]
    }

    /// One call that makes something.
    fn make(&mut self, kind: Kind) -> CUresult {
        let (mut made, mut address): (*mut c_void, u64) = (null_mut(), 0);
        let bytes = self.size();
        let name = [c"double_it", c"count_to", c"meet", c"teapot"][self.random.random_range(0..4)];
        let (text, flags) = (std::ffi::CString::new(KERNELS).unwrap(), self.random.random_range(0..3));
        // SAFETY: results and texts live through each call; handles may be anything, for the driver looks them up.
        let result = unsafe {
            match kind {
                Context => sys::cuCtxCreate_v2((&raw mut made).cast(), 0, 0),
                Stream => sys::cuStreamCreate((&raw mut made).cast(), flags),
                Event => sys::cuEventCreate((&raw mut made).cast(), flags),
                Memory if flags == 0 => sys::cuMemAllocAsync(&mut address, bytes, self.any(Stream)),
                Memory => sys::cuMemAlloc_v2(&mut address, bytes),
                Host => sys::cuMemHostAlloc(&mut made, bytes % 4096, 0),
                Module => sys::cuModuleLoadData((&raw mut made).cast(), text.as_ptr().cast()),
                Function => sys::cuModuleGetFunction((&raw mut made).cast(), self.any(Module), name.as_ptr()),
                Graph if flags == 0 => sys::cuGraphClone((&raw mut made).cast(), self.any(Graph)),
                Graph => sys::cuStreamEndCapture(self.any(Stream), (&raw mut made).cast()),
                Exec => sys::cuGraphInstantiateWithFlags((&raw mut made).cast(), self.any(Graph), 0),
            }
        };
        let made = made.addr().max(address as usize);
        if result == CUresult::CUDA_SUCCESS && made != 0 {
            self.seen[kind as usize].push(made);
        }
        result
    }

    /// One call that ends something.
    fn end(&mut self, kind: Kind) -> CUresult {
        let at_once = self.random.random();
        // SAFETY: as above.
        unsafe {
            match kind {
                Context if at_once => sys::cuCtxDestroy_v2(self.any(Context)),
                Context => sys::cuCtxPopCurrent_v2(null_mut()),
                Stream => sys::cuStreamDestroy_v2(self.any(Stream)),
                Event => sys::cuEventDestroy_v2(self.any(Event)),
                Memory if at_once => sys::cuMemFree_v2(self.address()),
                Memory => sys::cuMemFreeAsync(self.address(), self.any(Stream)),
                Host => sys::cuMemFreeHost(self.any(Host)),
                Module => sys::cuModuleUnload(self.any(Module)),
                Function => sys::cuMemPoolDestroy(self.any(Function)),
                Graph => sys::cuGraphDestroy(self.any(Graph)),
                Exec => sys::cuGraphExecDestroy(self.any(Exec)),
            }
        }
    }

    fn launch(&mut self) -> CUresult {
        let dimensions = [0, 1, 1, 1, 2, 33, u32::MAX];
        let [x, y, threads] = [(); 3].map(|()| dimensions[self.random.random_range(0..7)]);
        let address = self.address();
        // The third parameter of one kernel, and the second of another, is the lower half of this.
        let mut params: [*mut c_void; 3] = [(&raw const address).cast_mut().cast(); 3];
        let (function, stream) = (self.any(Function), self.any(Stream));
        // SAFETY: as above; a parameter is eight bytes or less.
        unsafe {
            sys::cuLaunchKernel(function, x, y, 1, threads, 1, 1, 0, stream, params.as_mut_ptr(), null_mut())
        }
    }

    /// One call that uses something.
    fn work(&mut self) -> CUresult {
        let (mut ms, mut count, bytes) = (0.0, 0, self.size());
        let (to, read) = (self.address(), self.read.as_mut_ptr().cast());
        // SAFETY: as above; what is read fits into `read`.
        unsafe {
            match self.random.random_range(0..20) {
                0 => sys::cuCtxSetCurrent(self.any(Context)),
                1 => sys::cuCtxPushCurrent_v2(self.any(Context)),
                2 => sys::cuCtxSynchronize(),
                3 => sys::cuStreamSynchronize(self.any(Stream)),
                4 => sys::cuEventRecord(self.any(Event), self.any(Stream)),
                5 => sys::cuStreamWaitEvent(self.any(Stream), self.any(Event), 0),
                6 => sys::cuEventElapsedTime(&mut ms, self.any(Event), self.any(Event)),
                7..=9 => sys::cuMemsetD8Async(to, 1, bytes.min(5000), self.any(Stream)),
                10 => sys::cuMemsetD2D8Async(to, bytes, 1, 2, bytes, self.any(Stream)),
                11 => sys::cuMemcpyDtoDAsync_v2(to, self.address(), bytes, self.any(Stream)),
                12 => sys::cuMemcpyDtoHAsync_v2(read, to, bytes.min(256), self.any(Stream)),
                13 => sys::cuLaunchHostFunc(self.any(Stream), Some(nothing), null_mut()),
                14 => sys::cuStreamBeginCapture_v2(self.any(Stream), Mode::CU_STREAM_CAPTURE_MODE_RELAXED),
                15 | 16 => sys::cuGraphLaunch(self.any(Exec), self.any(Stream)),
                17 => sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                    &mut count,
                    self.any(Function),
                    64,
                    bytes,
                ),
                _ => self.launch(),
            }
        }
    }

    /// One call, and whether it succeeded. A context that is broken gives way to a new one now and then.
    fn step(&mut self, at: usize) {
        let kind = KINDS[self.random.random_range(0..KINDS.len())];
        let (sort, result) = match self.random.random_range(0..10) {
            _ if at.is_multiple_of(50) => (0, self.make(Context)),
            0..4 => (0, self.make(kind)),
            4 => (1, self.end(kind)),
            _ => (2, self.work()),
        };
        self.succeeded[sort] += usize::from(result == CUresult::CUDA_SUCCESS);
    }
}

#[test]
fn no_order_of_calls_is_a_bug_of_the_simulator() {
    let program = Program::new(|| {
        let seed: u64 = std::env::var("CHAOS").unwrap().parse().unwrap();
        let random = SmallRng::seed_from_u64(seed);
        let mut chaos = Chaos { random, seen: Default::default(), succeeded: [0; 3], read: vec![0; 256] };
        // SAFETY: no pointers.
        unsafe { sys::cuInit(0) }.result().unwrap();
        (0..STEPS).for_each(|at| chaos.step(at));
        // Calls that all fail would show nothing.
        println!("succeeded: {:?}; made: {:?}", chaos.succeeded, chaos.seen.each_ref().map(Vec::len));
        assert!(chaos.succeeded.iter().all(|&count| count > STEPS / 100), "{:?}", chaos.succeeded);
        assert!(chaos.seen.iter().all(|seen| !seen.is_empty()));
    });
    for seed in 0..8 {
        let ended = program.run(&[("CHAOS", &seed.to_string()), ("KILN_SIM_FUEL", "10000")]);
        let Some(0 | 86) = ended.status else { panic!("seed {seed}: {:?}\n{}", ended.status, ended.stderr) };
        assert!(!ended.stderr.contains("bug of the simulator"), "seed {seed}: {}", ended.stderr);
        println!("{}", ended.stdout);
    }
}
