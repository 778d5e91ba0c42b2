//! A simulated device with one program on it: buffers, launches, and all the architectures and schedules.

use std::collections::BTreeSet;
use std::fs;
use std::marker::PhantomData;
use std::sync::Arc;

use kiln_sim::arch::Arch;
use kiln_sim::device::{Config, Device, LaunchConfig, Module, Schedule};
use kiln_sim::stamp::Stamp;

use crate::folder;

const ARCHITECTURES: [Arch; 3] = [Arch::Sm80, Arch::Sm90, Arch::Sm100];
const SCHEDULES: [Schedule; 4] =
    [Schedule::Fixed, Schedule::Seeded(1), Schedule::Seeded(2), Schedule::Seeded(3)];

/// What a buffer can hold.
pub(crate) trait Element: Copy {
    const BYTES: usize;
    fn append(self, to: &mut Vec<u8>);
    fn from_bytes(bytes: &[u8]) -> Self;
}

/// What a kernel can take.
pub(crate) trait Argument {
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! elements {
    ($($ty:ty)*) => {
        $(
            impl Element for $ty {
                const BYTES: usize = size_of::<$ty>();
                fn append(self, to: &mut Vec<u8>) {
                    to.extend_from_slice(&self.to_le_bytes());
                }
                fn from_bytes(bytes: &[u8]) -> $ty {
                    <$ty>::from_le_bytes(bytes.try_into().unwrap())
                }
            }

            impl Argument for $ty {
                fn bytes(&self) -> Vec<u8> {
                    self.to_le_bytes().into()
                }
            }
        )*
    };
}

elements!(i8 u8 i16 u16 i32 u32 i64 u64 f32 f64);

/// A structure by value.
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Argument for Raw {
    fn bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// Device memory for `len` elements.
#[derive(Clone, Copy)]
pub(crate) struct Buffer<T> {
    pub(crate) address: u64,
    len: usize,
    element: PhantomData<T>,
}

impl<T> Argument for Buffer<T> {
    fn bytes(&self) -> Vec<u8> {
        self.address.to_le_bytes().into()
    }
}

/// The device.
pub(crate) struct Gpu {
    device: Device,
    module: Arc<Module>,
    stamp: Stamp,
    launched: BTreeSet<String>,
    label: String,
}

impl Gpu {
    fn new(name: &str, ptx: &str, arch: Arch, schedule: Schedule) -> Gpu {
        let mut config = Config::new(arch);
        config.schedule = schedule;
        config.fuel = 1 << 30;
        let device = Device::new(config);
        let label = format!("{name} on {arch}, {schedule:?}");
        let module = device.load(ptx).unwrap_or_else(|error| panic!("{label}: {error}"));
        Gpu { device, module, stamp: Stamp::sequential(1, "test"), launched: BTreeSet::new(), label }
    }

    fn step(&mut self) -> Stamp {
        self.stamp = self.stamp.next("test");
        self.stamp.clone()
    }

    /// A buffer that nobody has written.
    pub(crate) fn space<T: Element>(&mut self, len: usize) -> Buffer<T> {
        let address = self.device.alloc((len * T::BYTES) as u64).unwrap();
        Buffer { address, len, element: PhantomData }
    }

    /// A buffer with values.
    pub(crate) fn put<T: Element>(&mut self, values: &[T]) -> Buffer<T> {
        let buffer = self.space(values.len());
        self.write(buffer.address, values);
        buffer
    }

    fn write<T: Element>(&mut self, address: u64, values: &[T]) {
        let mut bytes = Vec::with_capacity(values.len() * T::BYTES);
        values.iter().for_each(|value| value.append(&mut bytes));
        let stamp = self.step();
        self.device.write(address, &bytes, &stamp).unwrap_or_else(|fault| panic!("{}: {fault}", self.label));
    }

    /// All of a buffer; every element must have been written.
    pub(crate) fn get<T: Element>(&mut self, buffer: Buffer<T>) -> Vec<T> {
        self.read(buffer.address, buffer.len)
    }

    fn read<T: Element>(&mut self, address: u64, len: usize) -> Vec<T> {
        let mut bytes = vec![0; len * T::BYTES];
        let stamp = self.step();
        self.device
            .read(address, &mut bytes, &stamp)
            .unwrap_or_else(|fault| panic!("{}: {fault}", self.label));
        bytes.chunks(T::BYTES).map(T::from_bytes).collect()
    }

    /// Writes a variable of the module.
    pub(crate) fn set_global<T: Element>(&mut self, name: &str, value: T) {
        let (address, bytes) = self.module.global(name).expect("the variable is there");
        assert_eq!(bytes as usize, T::BYTES);
        self.write(address, &[value]);
    }

    /// Reads an element of a variable of the module.
    pub(crate) fn global<T: Element>(&mut self, name: &str, index: usize) -> T {
        let (address, _) = self.module.global(name).expect("the variable is there");
        self.read(address + (index * T::BYTES) as u64, 1)[0]
    }

    /// Launches a kernel, which must be without a finding.
    pub(crate) fn launch(&mut self, name: &str, config: &LaunchConfig, arguments: &[&dyn Argument]) {
        self.launched.insert(name.to_string());
        let kernel = self.module.kernel(name).unwrap_or_else(|| panic!("{} has no {name}", self.label));
        let info = &kernel.info().params;
        assert_eq!(info.len(), arguments.len(), "{name}: parameters");
        let mut params = vec![0; info.last().map_or(0, |last| (last.offset + last.size) as usize)];
        for (param, argument) in info.iter().zip(arguments) {
            let bytes = argument.bytes();
            assert_eq!(bytes.len(), param.size as usize, "{name}: an argument's size");
            params[param.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        let stamp = self.step();
        let done = self.device.launch(&kernel, config, &params, &stamp);
        done.unwrap_or_else(|fault| panic!("{}, {name}: {fault}", self.label));
    }
}

/// Runs a program wherever its target allows, and sees that each of its kernels was launched.
pub(crate) fn run(name: &str, runner: fn(&mut Gpu)) {
    let read = |extension: &str| fs::read_to_string(folder().join(name).with_extension(extension)).unwrap();
    let (source, ptx) = (read("cu"), read("ptx"));
    let least = source.lines().next().and_then(|line| line.strip_prefix("//@ arch: ")).unwrap();
    let (least, only) = least.strip_suffix('a').map_or((least, false), |least| (least, true));
    let least: Arch = least.parse().unwrap();
    for arch in ARCHITECTURES.into_iter().filter(|arch| *arch == least || *arch > least && !only) {
        for schedule in SCHEDULES {
            let mut gpu = Gpu::new(name, &ptx, arch, schedule);
            runner(&mut gpu);
            let kernels: BTreeSet<String> =
                gpu.module.kernels().iter().map(|kernel| kernel.to_string()).collect();
            assert_eq!(gpu.launched, kernels, "{}: launched, and there", gpu.label);
        }
    }
}

/// A grid and blocks of one dimension.
pub(crate) fn linear(blocks: usize, threads: usize) -> LaunchConfig {
    LaunchConfig::linear(blocks as u32, threads as u32)
}

/// Random numbers, the same each time (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// From `low` to `high`, both included.
    pub(crate) fn int(&mut self, low: i64, high: i64) -> i64 {
        low + (self.bits() % (high - low + 1) as u64) as i64
    }

    /// From `low` to `high`.
    pub(crate) fn float(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1 << 24) as f32;
        low + unit * (high - low)
    }

    pub(crate) fn ints(&mut self, n: usize, low: i64, high: i64) -> Vec<i32> {
        (0..n).map(|_| self.int(low, high) as i32).collect()
    }

    pub(crate) fn floats(&mut self, n: usize, low: f32, high: f32) -> Vec<f32> {
        (0..n).map(|_| self.float(low, high)).collect()
    }
}
