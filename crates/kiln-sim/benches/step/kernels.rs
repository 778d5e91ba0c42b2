//! The step as Kiln's `graph` engine launches it: float32, stochastic gradient descent with momentum, a batch of 64 in an
//! epoch of 128 samples.

use kiln_sim::arch::Arch;
use kiln_sim::device::{Config, Device, LaunchConfig, Module};
use kiln_sim::stamp::Stamp;

use super::{BATCH, CLASSES, HIDDEN, INPUTS, Launch, Step};

const SAMPLES: u32 = 128;

/// A device under construction: what is on it so far.
struct Building {
    device: Device,
    stamp: Stamp,
}

impl Building {
    /// A buffer of bytes.
    fn bytes(&mut self, image: &[u8]) -> u64 {
        let address = self.device.alloc(image.len() as u64).expect("there is memory");
        self.device.write(address, image, &self.stamp).expect("a copy into an allocation");
        self.stamp = self.stamp.next("copy");
        address
    }

    /// A buffer of 32-bit words.
    fn words(&mut self, count: u32, value: impl Fn(u32) -> u32) -> u64 {
        let image: Vec<u8> = (0..count).flat_map(|n| value(n).to_le_bytes()).collect();
        self.bytes(&image)
    }

    fn floats(&mut self, count: u32, value: impl Fn(u32) -> f32) -> u64 {
        self.words(count, |n| value(n).to_bits())
    }
}

/// A parameter of a kernel.
#[derive(Clone, Copy)]
enum Param {
    P(u64),
    U(u32),
    F(f32),
}
use Param::{F, P, U};

/// Parameters as they lie in memory: each at a multiple of its size.
fn packed(params: &[Param]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for param in params {
        let image = match param {
            P(pointer) => pointer.to_le_bytes().to_vec(),
            U(number) => number.to_le_bytes().to_vec(),
            F(number) => number.to_le_bytes().to_vec(),
        };
        bytes.resize(bytes.len().next_multiple_of(image.len()), 0);
        bytes.extend(image);
    }
    bytes
}

fn launch(module: &Module, name: &str, grid: [u32; 2], threads: u32, params: &[Param]) -> Launch {
    let mut config = LaunchConfig::linear(grid[0], threads);
    config.grid[1] = grid[1];
    (module.kernel(name).expect("the kernel is there"), config, packed(params))
}

/// The step, ready to run: the same batch each time, as the counter of steps is moved on by none.
pub(crate) fn step(checks: bool) -> Step {
    let mut config = Config::new(Arch::Sm80);
    config.checks = checks;
    let device = Device::new(config);
    let load = |ptx| device.load(ptx).expect("the committed PTX loads");
    let linear = load(include_str!("../../../../kernels/ptx/linear_f32.ptx"));
    let head = load(include_str!("../../../../kernels/ptx/head_f32.ptx"));
    let gradients = load(include_str!("../../../../kernels/ptx/weight_gradients_f32.ptx"));
    let epoch = load(include_str!("../../../../kernels/ptx/epoch.ptx"));
    let mut on = Building { device, stamp: Stamp::sequential(1, "copy") };

    let small = |n: u32| (n.wrapping_mul(2_654_435_761) >> 20) as f32 / 65536.0 - 0.03;
    let pixels: Vec<u8> =
        (0..SAMPLES * INPUTS).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let labels: Vec<u8> = (0..SAMPLES).map(|n| (n % CLASSES) as u8).collect();
    let (x, labels) = (P(on.bytes(&pixels)), P(on.bytes(&labels)));
    // An order that is no order: neighbours in a batch lie apart.
    let (order, counter) = (P(on.words(SAMPLES, |n| n * 37 % SAMPLES)), P(on.words(1, |_| 0)));
    let (w1, v1) = (P(on.floats(HIDDEN * INPUTS, small)), P(on.floats(HIDDEN * INPUTS, |_| 0.0)));
    let (b1, c1) = (P(on.floats(HIDDEN, small)), P(on.floats(HIDDEN, |_| 0.0)));
    let (w2, v2) = (P(on.floats(CLASSES * HIDDEN, small)), P(on.floats(CLASSES * HIDDEN, |_| 0.0)));
    let (b2, c2) = (P(on.floats(CLASSES, small)), P(on.floats(CLASSES, |_| 0.0)));
    let (h, dh) = (P(on.floats(BATCH * HIDDEN, |_| 0.0)), P(on.floats(BATCH * HIDDEN, |_| 0.0)));
    let dz = P(on.floats(BATCH * CLASSES, |_| 0.0));
    let (losses, hits) = (P(on.floats(SAMPLES, |_| 0.0)), P(on.words(SAMPLES, |_| 0)));
    // Learning rate, share of the velocity kept, share of the gradient that enters it, nothing.
    let scalars = P(on.floats(8, |n| [0.05, 0.9, 1.0, 0.0][n as usize % 4]));

    let at = [order, counter, U(0), U(BATCH)];
    let gathered = |data: Param, rest: &[Param]| [&[data], &at[..], rest].concat();
    // A layer of the gradients' table: x, dz, parameters, velocities, K, N and blocks of 16 x 32, and a gap.
    let blocks = |k: u32, n: u32| k.div_ceil(32) * n.div_ceil(16);
    let layer = |x: Param, dz, parameters: [Param; 4], k: u32, n: u32| {
        [&[x, dz], &parameters[..], &[U(k), U(n), U(blocks(k, n)), U(0)]].concat()
    };
    let first = layer(P(0), dh, [w1, b1, v1, c1], INPUTS, HIDDEN);
    let second = layer(h, dz, [w2, b2, v2, c2], HIDDEN, CLASSES);
    let none = [[P(0); 6].as_slice(), &[U(0); 4]].concat().repeat(6);
    let blocks = blocks(INPUTS, HIDDEN) + blocks(HIDDEN, CLASSES);
    let launches = vec![
        launch(
            &linear,
            "linear_pixels_relu_tiny",
            [BATCH.div_ceil(16), HIDDEN.div_ceil(8)],
            32 * INPUTS.div_ceil(64),
            &gathered(x, &[w1, b1, h, U(BATCH), U(INPUTS), U(HIDDEN)]),
        ),
        launch(
            &head,
            "head_softmax_cross_entropy",
            [BATCH.div_ceil(4), 1],
            128,
            &gathered(labels, &[h, w2, b2, dz, dh, losses, hits, U(BATCH), U(BATCH), U(HIDDEN), U(CLASSES)]),
        ),
        launch(
            &gradients,
            "weight_gradients_pixels_momentum_small",
            [blocks, 1],
            128,
            &gathered(
                x,
                &[&first[..], &second, &none, &[scalars, F(0.0), F(0.0), F(1.0), U(BATCH)]].concat(),
            ),
        ),
        launch(&epoch, "advance", [1, 1], 1, &[counter, U(0)]),
    ];
    Step { device: on.device, launches, stamp: on.stamp }
}
