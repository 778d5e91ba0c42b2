//! What simulating one training step costs: 784-128-10, batch 64, every checker on.
//!
//! Two groups. `step`: layer by layer, with kernels as a reader would write them; `step.ptx` is `step.cu`, compiled by
//! `scripts/corpus`. `kiln`: Kiln's own kernels, as its `graph` engine launches them. The two large products of either are
//! 12.8 M multiply-adds.
//!
//! `KILN_BENCH_STEPS=n` runs n steps of `kiln` and nothing else, for a profiler or a count of cycles.

mod kernels;

use criterion::{Criterion, criterion_group};
use kiln_sim::arch::Arch;
use kiln_sim::device::{Config, Device, Kernel, LaunchConfig, Module};
use kiln_sim::stamp::Stamp;

const BATCH: u32 = 64;
const INPUTS: u32 = 784;
const HIDDEN: u32 = 128;
const CLASSES: u32 = 10;

/// A kernel with all that it is launched with.
type Launch = (Kernel, LaunchConfig, Vec<u8>);

/// A device with the step's buffers on it.
struct Step {
    device: Device,
    launches: Vec<Launch>,
    stamp: Stamp,
}

impl Step {
    fn new(checks: bool) -> Step {
        let mut config = Config::new(Arch::Sm80);
        config.checks = checks;
        let device = Device::new(config);
        let module = device.load(include_str!("../step.ptx")).expect("the committed PTX loads");
        let mut stamp = Stamp::sequential(1, "copy");
        let mut buffer = |words: u32, value: &dyn Fn(u32) -> f32| {
            let address = device.alloc(u64::from(words) * 4).expect("there is memory");
            let bytes: Vec<u8> = (0..words).flat_map(|n| value(n).to_le_bytes()).collect();
            device.write(address, &bytes, &stamp).expect("a copy into an allocation");
            stamp = stamp.next("copy");
            address
        };
        let small = |n: u32| (n.wrapping_mul(2_654_435_761) >> 20) as f32 / 65536.0 - 0.03;
        let x = buffer(BATCH * INPUTS, &|n| (n % 7) as f32 / 7.0);
        let (w1, v1) = (buffer(HIDDEN * INPUTS, &small), buffer(HIDDEN * INPUTS, &|_| 0.0));
        let (w2, v2) = (buffer(CLASSES * HIDDEN, &small), buffer(CLASSES * HIDDEN, &|_| 0.0));
        let (b1, vb1, b2, vb2) = (
            buffer(HIDDEN, &small),
            buffer(HIDDEN, &|_| 0.0),
            buffer(CLASSES, &small),
            buffer(CLASSES, &|_| 0.0),
        );
        let labels = buffer(BATCH / 4, &|_| f32::from_bits(0x0302_0100));
        let (h, dh) = (buffer(BATCH * HIDDEN, &|_| 0.0), buffer(BATCH * HIDDEN, &|_| 0.0));
        let (loss, dz) = (buffer(BATCH, &|_| 0.0), buffer(BATCH * CLASSES, &|_| 0.0));
        let launches = vec![
            launch(&module, "forward1", [HIDDEN / 32, 1], 128, &[x, w1, b1, h]),
            launch(&module, "forward2", [BATCH / 32, 1], 32, &[h, w2, b2, labels, loss, dz]),
            launch(&module, "backward2", [BATCH, 1], HIDDEN, &[dz, w2, h, dh]),
            launch(&module, "update2", [CLASSES, 1], HIDDEN, &[dz, h, w2, v2, b2, vb2]),
            launch(&module, "update1", [INPUTS.div_ceil(32), HIDDEN / 64], 128, &[dh, x, w1, v1]),
            launch(&module, "bias1", [1, 1], HIDDEN, &[dh, b1, vb1]),
        ];
        Step { device, launches, stamp }
    }

    /// Runs one step; instructions executed.
    fn run(&mut self) -> u64 {
        let mut instructions = 0;
        for (kernel, config, params) in &self.launches {
            let done = self.device.launch(kernel, config, params, &self.stamp);
            instructions += done.unwrap_or_else(|fault| panic!("{fault}")).instructions;
            self.stamp = self.stamp.next("launch");
        }
        instructions
    }
}

fn launch(module: &Module, name: &str, grid: [u32; 2], threads: u32, pointers: &[u64]) -> Launch {
    let kernel = module.kernel(name).expect("the kernel is there");
    let mut config = LaunchConfig::linear(grid[0], threads);
    config.grid[1] = grid[1];
    (kernel, config, pointers.iter().flat_map(|pointer| pointer.to_le_bytes()).collect())
}

fn bench(criterion: &mut Criterion) {
    group(criterion, "step", Step::new);
    group(criterion, "kiln", kernels::step);
}

fn group(criterion: &mut Criterion, what: &str, make: fn(bool) -> Step) {
    let mut group = criterion.benchmark_group(what);
    group.sample_size(20);
    for (name, checks) in [("checked", true), ("bounds only", false)] {
        let mut step = make(checks);
        println!("{what}/{name}: {} warp instructions", step.run());
        group.bench_function(name, |bencher| bencher.iter(|| step.run()));
    }
    group.finish();
}

criterion_group!(benches, bench);

fn main() {
    if let Some(steps) = std::env::var("KILN_BENCH_STEPS").ok().and_then(|steps| steps.parse().ok()) {
        let mut step = kernels::step(true);
        (0..steps).for_each(|_| _ = step.run());
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
