//! The rungs of `kernels/ladder` against training in float64, against themselves on other schedules, and with a fault each.

use kiln_tests::{on_device, sim, test_name};

use super::mutants::{FAILED, FOUND, WHICH, no_wait, replaced, without};
use super::*;
use crate::gpu::kernels::{Group, Launch, Team};

#[path = "../../../../../kernels/ladder/rungs.rs"]
mod rungs;

use rungs::{RUNGS, Rung, THREADS};

/// Of a model and its training.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    samples: u32,
    k: u32,
    h: u32,
    c: u32,
    batch: u32,
    rows: u32,
    epochs: u32,
}

/// Odd and prime, with a tail: of eight blocks some have fewer units and rows than others, and some none.
const ODD: Sizes = Sizes { samples: 31, k: 37, h: 19, c: 7, batch: 11, rows: 29, epochs: 2 };
const SIZES: [Sizes; 4] = [
    ODD,
    Sizes { samples: 59, k: 61, h: 47, c: 13, batch: 23, rows: 53, epochs: 2 },
    // Nothing is left over anywhere.
    Sizes { samples: 16, k: 16, h: 8, c: 4, batch: 8, rows: 16, epochs: 3 },
    // One unit and one row: seven blocks have none.
    Sizes { samples: 5, k: 3, h: 1, c: 2, batch: 1, rows: 2, epochs: 2 },
];

impl Sizes {
    /// Inputs, hidden units, classes.
    fn layers(&self) -> [u32; 3] {
        [self.k, self.h, self.c]
    }

    /// Where w1, b1, w2 and b2 lie in an arena.
    fn places(&self) -> [std::ops::Range<usize>; 4] {
        rungs::arena(self.layers()).0
    }

    fn arena(&self) -> usize {
        rungs::arena(self.layers()).1
    }
}

/// A training: sizes, data, and where it begins.
struct Job {
    sizes: Sizes,
    /// (samples, K)
    pixels: Vec<u8>,
    labels: Vec<u8>,
    /// (epochs, rows)
    order: Vec<u32>,
    parameters: Vec<f32>,
    velocities: Vec<f32>,
    lr: f32,
    momentum: f32,
}

/// What stands between the tensors of an arena: no kernel may write there, nor take anything from there.
const GAP: f32 = f32::NAN;

impl Job {
    fn new(sizes: Sizes) -> Self {
        let Sizes { samples, k, h, c, rows, epochs, .. } = sizes;
        let mut random = SmallRng::seed_from_u64(7);
        // Uniform in plus and minus 1 / sqrt(inputs), as a training begins, and a hundredth of it.
        let mut arena = |width: f32| {
            let mut values = vec![GAP; sizes.arena()];
            for (place, inputs) in sizes.places().into_iter().zip([k, k, h, h]) {
                let width = width / (inputs as f32).sqrt();
                values[place].fill_with(|| random.random_range(-width..width));
            }
            values
        };
        let (parameters, velocities) = (arena(1.0), arena(0.01));
        Self {
            sizes,
            pixels: pixels(8, (samples * k) as usize),
            labels: (0..samples).map(|_| random.random_range(0..c) as u8).collect(),
            order: (0..epochs * rows).map(|_| random.random_range(0..samples)).collect(),
            parameters,
            velocities,
            lr: 0.05,
            momentum: 0.9,
        }
    }

    /// One epoch of it, from where another training ended.
    fn epoch(&self, epoch: u32, from: Trained) -> Self {
        let rows = self.sizes.rows as usize;
        Self {
            sizes: Sizes { epochs: 1, ..self.sizes },
            pixels: self.pixels.clone(),
            labels: self.labels.clone(),
            order: self.order[epoch as usize * rows..][..rows].to_vec(),
            parameters: from.parameters,
            velocities: from.velocities,
            ..*self
        }
    }

    /// The samples of each step.
    fn batches(&self) -> impl Iterator<Item = &[u32]> {
        self.order.chunks(self.sizes.rows as usize).flat_map(|epoch| epoch.chunks(self.sizes.batch as usize))
    }
}

/// What a training leaves.
#[derive(Clone)]
struct Trained {
    parameters: Vec<f32>,
    velocities: Vec<f32>,
    /// (epochs, rows)
    losses: Vec<f32>,
}

impl Trained {
    fn bits(&self) -> Vec<u32> {
        [&self.parameters, &self.velocities, &self.losses]
            .into_iter()
            .flatten()
            .map(|v| v.to_bits())
            .collect()
    }
}

/// Trains on the device.
fn train(gpu: &Gpu, rung: &Rung, job: &Job) -> Trained {
    let Sizes { samples, k, h, c, batch, rows, epochs } = job.sizes;
    let pitch = rung.pitch(k);
    let padded = rung.padded(&job.pixels, k);
    let (x, labels, order) = (buffer(gpu, &padded), buffer(gpu, &job.labels), buffer(gpu, &job.order));
    let (parameters, velocities) = (buffer(gpu, &job.parameters), buffer(gpu, &job.velocities));
    let losses = poisoned(gpu, job.order.len());
    let arena = job.sizes.arena();
    Launch::new(gpu, rung.kernel, Dims { b: batch, k, n: h })
        .pointer(&x.all(), padded.len())
        .pointer(&labels.all(), samples as usize)
        .pointer(&order.all(), (epochs * rows) as usize)
        .pointer(&parameters.all(), arena)
        .pointer(&velocities.all(), arena)
        .pointer(&losses.all(), (epochs * rows) as usize)
        .number(&k)
        .number(&pitch)
        .number(&h)
        .number(&c)
        .number(&batch)
        .number(&rows)
        .number(&epochs)
        .number(&job.lr)
        .number(&job.momentum)
        .group(Group {
            team: Team::Cluster,
            blocks: rung.blocks,
            shared_bytes: rung.shared_bytes(job.sizes.layers(), batch),
        })
        .submit((rung.blocks, 1, 1), THREADS)
        .unwrap();
    Trained {
        parameters: read(gpu, &parameters, arena),
        velocities: read(gpu, &velocities, arena),
        losses: read(gpu, &losses, job.order.len()),
    }
}

/// A value in float64, and what a kernel's float32 may be off from it: the first by training in float64, the second by following
/// every rounding through the whole training (Higham, section 3.3, running error analysis). Numbers are far from underflow.
#[derive(Debug, Clone, Copy, Default)]
struct Real {
    value: f64,
    off: f64,
}

impl Real {
    fn exact(value: impl Into<f64>) -> Self {
        Self { value: value.into(), off: 0.0 }
    }

    /// The most that a kernel's value may be in size.
    fn most(self) -> f64 {
        self.value.abs() + self.off
    }

    /// The product before it is rounded.
    fn times(self, other: Self) -> Self {
        let off = self.value.abs() * other.off + other.value.abs() * self.off + self.off * other.off;
        Self { value: self.value * other.value, off }
    }

    /// The sum in any order, fused or not, where no term goes through more than so many roundings.
    fn sum(terms: impl IntoIterator<Item = Self>, roundings: u32) -> Self {
        let mut sum = Self::default();
        let mut most = 0.0;
        for term in terms {
            sum.value += term.value;
            sum.off += term.off;
            most += term.most();
        }
        sum.off += Bound::FLOAT32.factor(roundings as usize, 0) * most;
        sum
    }

    /// The value itself after so many roundings.
    fn rounded(self, roundings: u32) -> Self {
        Self::sum([self], roundings)
    }

    /// One over it, before rounding, for a positive value.
    fn inverse(self) -> Self {
        let least = self.value - self.off;
        assert!(least > 0.0, "{self:?} may be zero");
        Self { value: self.value.recip(), off: self.off / (self.value * least) }
    }

    /// `expf`: off by 2 units in the last place, which are 2 u each at most (CUDA C++ Programming Guide, mathematical functions).
    fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, off: value * self.off.exp_m1() }.rounded(4)
    }

    /// `logf` of a positive value: off by 1 unit in the last place.
    fn ln(self) -> Self {
        Self { value: self.value.ln(), off: -(-self.off / self.value).ln_1p() }.rounded(2)
    }

    /// ReLU. Where a kernel's value may be on the other side of the kink, nothing can be said: such a job is no test.
    fn relu(self) -> Self {
        assert!(self.value.abs() > self.off, "{self:?} may be on either side of the kink");
        if self.value > 0.0 { self } else { Self::default() }
    }
}

/// The same training in float64: parameters, velocities, losses.
fn reference(job: &Job) -> [Vec<Real>; 3] {
    let Sizes { k, h, c, .. } = job.sizes;
    let (inputs, units, classes) = (k as usize, h as usize, c as usize);
    let reals = |values: &[f32]| values.iter().map(|&v| Real::exact(v)).collect::<Vec<_>>();
    let (mut p, mut v, mut losses) = (reals(&job.parameters), reals(&job.velocities), Vec::new());
    let [w1, b1, w2, b2] = job.sizes.places().map(|place| place.start);
    for samples in job.batches() {
        let rows = samples.len() as u32;
        let mut g = vec![Vec::new(); p.len()]; // terms
        for &sample in samples {
            let x: Vec<Real> =
                job.pixels[sample as usize * inputs..][..inputs].iter().map(|&x| Real::exact(x)).collect();
            // 1/255 is rounded, and so is what it is multiplied by.
            let pixel = Real { value: 1.0 / 255.0, off: U / 255.0 };
            let x: Vec<Real> = x.into_iter().map(|x| x.times(pixel)).collect();
            let label = usize::from(job.labels[sample as usize]);
            let hidden = |u: usize| {
                let products = (0..inputs).map(|i| x[i].times(p[w1 + u * inputs + i]));
                Real::sum(products.chain([p[b1 + u]]), k + 1).relu()
            };
            let hidden: Vec<Real> = (0..units).map(hidden).collect();
            let logit = |class: usize| {
                let products = (0..units).map(|u| hidden[u].times(p[w2 + class * units + u]));
                Real::sum(products.chain([p[b2 + class]]), h + 8) // with the shares of eight blocks
            };
            let z: Vec<Real> = (0..classes).map(logit).collect();
            let high = Real {
                value: z.iter().map(|z| z.value).fold(f64::NEG_INFINITY, f64::max),
                off: z.iter().map(|z| z.off).fold(0.0, f64::max),
            };
            let less = |a: Real, b: Real| Real::sum([a, b.times(Real::exact(-1.0))], 1);
            let powers: Vec<Real> = z.iter().map(|&z| less(z, high).exp()).collect();
            let sum = Real::sum(powers.iter().copied(), c);
            losses.push(Real::sum([sum.ln(), less(high, z[label])], 1));

            let scale = sum.times(Real::exact(rows)).rounded(1).inverse().rounded(1);
            let mean = Real::exact(-1.0 / f64::from(rows)).rounded(1);
            let of_class = |(class, power): (usize, &Real)| {
                Real::sum([power.times(scale), if class == label { mean } else { Real::default() }], 1)
            };
            let dz: Vec<Real> = powers.iter().enumerate().map(of_class).collect();
            for u in 0..units {
                let products = (0..classes).map(|class| dz[class].times(p[w2 + class * units + u]));
                let dh = if hidden[u].value > 0.0 { Real::sum(products, c) } else { Real::default() };
                (0..inputs).for_each(|i| g[w1 + u * inputs + i].push(dh.times(x[i])));
                (0..classes).for_each(|class| g[w2 + class * units + u].push(dz[class].times(hidden[u])));
                g[b1 + u].push(dh);
            }
            (0..classes).for_each(|class| g[b2 + class].push(dz[class]));
        }
        for at in job.sizes.places().into_iter().flatten() {
            let gradient = Real::sum(g[at].drain(..), rows + 1); // of w1 also by 1/255
            v[at] = Real::sum([v[at].times(Real::exact(job.momentum)), gradient], 1);
            p[at] = Real::sum([p[at], v[at].times(Real::exact(-job.lr))], 1);
        }
    }
    [p, v, losses]
}

/// Demands that a rung's training is the reference's.
fn assert_follows(rung: &Rung, job: &Job, trained: &Trained) {
    let [parameters, velocities, losses] = reference(job);
    let all = [&parameters, &velocities, &losses].into_iter().flatten();
    let widest = all.map(|real| real.off).fold(0.0, f64::max);
    println!("bounds of {:?}: {widest:.1e} at most", job.sizes);
    assert!(widest < 1e-3, "{:?}: a bound of {widest:e} says little", job.sizes);
    let values: Vec<usize> = job.sizes.places().into_iter().flatten().collect();
    for (what, got, expected) in
        [("parameters", &trained.parameters, parameters), ("velocities", &trained.velocities, velocities)]
    {
        let gap = |at: &usize| !values.contains(at);
        assert!((0..got.len()).filter(gap).all(|at| got[at].to_bits() == GAP.to_bits()), "{what}: a gap");
        let got: Vec<f32> = values.iter().map(|&at| got[at]).collect();
        let what = format!("{what} of {}, {:?}", rung.kernel, job.sizes);
        assert_close(&what, &got, |i| (expected[values[i]].value, expected[values[i]].off));
    }
    let what = format!("losses of {}, {:?}", rung.kernel, job.sizes);
    assert_close(&what, &trained.losses, |row| (losses[row].value, losses[row].off));
}

fn gpu() -> Gpu {
    open_with(&RUNGS.map(|rung| (rung.name, rung.ptx)))
}

#[test]
fn every_rung_follows_float64() {
    on_device!();
    if !has_clusters() {
        return;
    }
    let gpu = gpu();
    for sizes in SIZES {
        let job = Job::new(sizes);
        for rung in &RUNGS {
            assert_follows(rung, &job, &train(&gpu, rung, &job));
        }
    }
}

/// Rungs of one cluster add in the same order.
#[test]
fn rungs_of_a_cluster_agree_bit_for_bit() {
    on_device!();
    if !has_clusters() {
        return;
    }
    let gpu = gpu();
    for sizes in SIZES {
        let job = Job::new(sizes);
        let [second, third, fourth] = [1, 2, 3].map(|at| train(&gpu, &RUNGS[at], &job).bits());
        assert_eq!(third, second, "{sizes:?}");
        assert_eq!(fourth, second, "{sizes:?}");
    }
}

/// Nothing but parameters and velocities is carried from epoch to epoch.
#[test]
fn an_epoch_a_launch_is_the_same_training() {
    on_device!();
    if !has_clusters() {
        return;
    }
    let gpu = gpu();
    let job = Job::new(ODD);
    for rung in &RUNGS {
        let whole = train(&gpu, rung, &job);
        let start = Trained {
            parameters: job.parameters.clone(),
            velocities: job.velocities.clone(),
            losses: Vec::new(),
        };
        let mut losses = Vec::new();
        let mut end = (0..ODD.epochs).fold(start, |from, epoch| {
            let trained = train(&gpu, rung, &job.epoch(epoch, from));
            losses.extend(&trained.losses);
            trained
        });
        end.losses = losses;
        assert_eq!(end.bits(), whole.bits(), "{}", rung.kernel);
    }
}

/// The same bits on every schedule, and no finding on any.
#[test]
fn every_rung_gives_the_same_bits_on_six_schedules() {
    if !sim::on_device() {
        let trained =
            |seed: u32| sim::printed_again(test_name!(), &[("KILN_SIM_SEED", &seed.to_string())], "bits of ");
        let first = trained(1);
        assert_eq!(first.len(), RUNGS.len());
        (2..=6).for_each(|seed| assert_eq!(trained(seed), first, "seed {seed}"));
        return;
    }
    if !has_clusters() {
        return;
    }
    let gpu = gpu();
    let job = Job::new(ODD);
    for rung in &RUNGS {
        let bits = train(&gpu, rung, &job).bits();
        assert_eq!(train(&gpu, rung, &job).bits(), bits, "{} once more", rung.kernel);
        let hash = kiln_tests::hash(bits.iter().map(|&value| value.into()));
        println!("bits of {}: {hash:#018x}", rung.kernel);
    }
}

/// A training that is slightly another one is not within the bounds: they are no wider than they must be.
#[test]
fn the_bounds_tell_trainings_apart() {
    let of = |job: &Job| -> Vec<Real> { reference(job).into_iter().flatten().collect() };
    let apart = |a: &Job, b: &Job| {
        let differs = |(a, b): (&Real, &Real)| (a.value - b.value).abs() > a.off + b.off;
        of(a).iter().zip(&of(b)).any(differs)
    };
    for sizes in SIZES {
        let job = || Job::new(sizes);
        assert!(!apart(&job(), &job()));
        assert!(apart(&job(), &Job { lr: job().lr * 1.01, ..job() }), "{sizes:?}: the learning rate");
        assert!(apart(&job(), &Job { momentum: 0.89, ..job() }), "{sizes:?}: the momentum");
        let mut another = job();
        let last = another.order.last_mut().unwrap();
        *last = (*last + 1) % sizes.samples;
        assert!(apart(&job(), &another), "{sizes:?}: the last sample");
    }
}

/// A fault in a kernel's text.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The n-th __syncthreads is not there.
    NoBarrier(usize),
    /// The n-th barrier of the cluster is not there.
    NoClusterBarrier(usize),
    /// The n-th wait at an mbarrier does not wait.
    NoWait(usize),
    /// The n-th wait at an mbarrier waits for the phase of the other parity.
    OtherPhase(usize),
    /// Bytes are not announced at the n-th place.
    NoArm(usize),
    /// Blocks do not tell each other at the n-th place.
    NoTell(usize),
    /// No fence tells bulk copies of the mbarriers.
    NoFences,
    /// Text is another.
    Text(&'static str, &'static str),
}

const ARRIVE: &str = "barrier.cluster.arrive";
const WAIT: &str = "mbarrier.try_wait";
const ARM: &str = "mbarrier.arrive.expect_tx";
const TELL: &str = "mbarrier.arrive.release";

impl Fault {
    fn in_text(self, text: &str) -> String {
        match self {
            Fault::NoBarrier(n) => without(text, "bar.sync", n),
            Fault::NoClusterBarrier(n) => without(&without(text, ARRIVE, n), "barrier.cluster.wait", n),
            Fault::NoWait(n) => no_wait(text, n),
            Fault::OtherPhase(n) => {
                let (at, _) = text.match_indices(WAIT).nth(n).expect("the kernel has as many waits");
                let end = at + text[at..].find(';').expect("an instruction ends");
                let (wait, parity) = text[at..end].rsplit_once(", ").expect("the parity is the last operand");
                let (before, after) = (&text[..at], &text[end..]);
                format!("{before}.reg .b32 q;\nxor.b32 q, {parity}, 1;\n{wait}, q{after}")
            }
            Fault::NoArm(n) => without(text, ARM, n),
            Fault::NoTell(n) => without(text, TELL, n),
            Fault::NoFences => without(&without(text, "fence.mbarrier_init", 0), "fence.proxy.async", 0),
            Fault::Text(from, to) => replaced(text, from, to),
        }
    }

    /// What tells of it: kinds of findings, or the words of the comparison.
    fn told(self) -> &'static [&'static str] {
        match self {
            Fault::NoBarrier(_) | Fault::NoWait(_) | Fault::OtherPhase(_) => &["race", "uninitialised"],
            Fault::NoClusterBarrier(0) => &["misuse", "mbarrier"],
            Fault::NoClusterBarrier(_) => &["race", "uninitialised", "use-after-free"],
            Fault::NoArm(_) | Fault::NoTell(_) => &["deadlock"],
            Fault::NoFences | Fault::Text(ACQUIRE | RELEASE, _) => &["race"],
            Fault::Text(TO_ALL, _) => &["deadlock"],
            Fault::Text(..) => &["off by"],
        }
    }
}

const ACQUIRE: &str = "parity.acquire.cluster";
const RELEASE: &str = "arrive.release.cluster.shared::cluster";
/// The mask of a multicast.
const TO_ALL: &str = ", 255;";
/// Where ReLU has cut.
const CUT: &str = "setp.leu.f32";

/// Every barrier and every wait of every rung is needed, and so are order and scope of what blocks tell each other: each with the
/// number of its rung.
fn mutants() -> Vec<(usize, Fault)> {
    let mut mutants = Vec::new();
    for (at, rung) in RUNGS.iter().enumerate() {
        let mut add = |fault| mutants.push((at, fault));
        let count = |instruction: &str| rung.ptx.matches(instruction).count();
        (0..count("bar.sync")).for_each(|n| add(Fault::NoBarrier(n)));
        (0..count(ARRIVE)).for_each(|n| add(Fault::NoClusterBarrier(n)));
        (0..count(WAIT)).for_each(|n| add(Fault::NoWait(n)));
        (0..count(WAIT)).for_each(|n| add(Fault::OtherPhase(n)));
        (0..count(ARM)).for_each(|n| add(Fault::NoArm(n)));
        (0..count(TELL)).for_each(|n| add(Fault::NoTell(n)));
        if rung.mbarriers > 0 {
            add(Fault::Text(ACQUIRE, "parity.relaxed.cluster"));
            add(Fault::Text(ACQUIRE, "parity.acquire.cta"));
            add(Fault::Text(RELEASE, "arrive.relaxed.cluster.shared::cluster"));
            add(Fault::Text(RELEASE, "arrive.release.cta.shared::cluster"));
        }
        if rung.slots > 1 {
            add(Fault::Text(TO_ALL, ", 127;"));
            add(Fault::NoFences);
        }
        add(Fault::Text(CUT, "setp.ltu.f32"));
    }
    mutants
}

#[test]
fn every_mutant_of_the_ladder_is_caught() {
    if sim::on_device() {
        if has_clusters() {
            run_one();
        }
        return;
    }
    // On GPUs without clusters there is nothing to find, and nothing that fails.
    sim::pass_again(test_name!(), &[&[], &[("KILN_SIM_ARCH", "sm_80")]]);
    let mutants = mutants();
    let barriers = mutants.iter().filter(|(_, fault)| matches!(fault, Fault::NoBarrier(_))).count();
    assert_eq!((barriers, mutants.len()), (27, 66), "a kernel has other barriers and waits than it had");
    for (number, (rung, fault)) in mutants.iter().enumerate() {
        let kernel = RUNGS[*rung].kernel;
        let output = sim::run_again(test_name!(), &[(WHICH, &number.to_string())]);
        let code = output.status.code();
        let text = String::from_utf8_lossy(&output.stderr);
        let told = |what: &&str| match *what {
            "off by" => code == Some(FAILED) && text.contains("off by"),
            kind => code == Some(FOUND) && text.contains(&format!("kiln-sim: {kind}:")),
        };
        let caught = fault.told().iter().any(told) && text.contains(kernel);
        assert!(caught, "{kernel}, {fault:?}: expected {:?}, found {code:?}\n{text}", fault.told());
    }
}

/// Every rung against its reference, or the one that the environment names, with its fault.
fn run_one() {
    let mutants = mutants();
    let which = std::env::var(WHICH).ok().map(|number| mutants[number.parse::<usize>().unwrap()]);
    let job = Job::new(ODD);
    for (at, rung) in RUNGS.iter().enumerate() {
        let text = match which {
            Some((mutant, _)) if mutant != at => continue,
            Some((_, fault)) => fault.in_text(rung.ptx).leak(),
            None => rung.ptx,
        };
        let gpu = open_with(&[(rung.name, text)]);
        assert_follows(rung, &job, &train(&gpu, rung, &job));
    }
}
