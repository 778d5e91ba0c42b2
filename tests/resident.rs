//! The resident engine as its users meet it: the host's results, the same bits however many epochs are in a launch, and a clear
//! answer where it does not fit.

mod synthetic;

use std::sync::atomic::AtomicBool;

use kiln_engine::{
    AdamW, Curve, Epoch, Epochs, Error, Evaluation, GraphOptions, Job, Loss, Mlp, Precision, ResidentOptions,
    Samples, Schedule, Sgd, Sweep, Targets, Team, Tensor, Trainer, profile_phases, resident_fits,
};
use kiln_tests::{on_device, sim, test_name};
use synthetic::{CLASSES, Data, FORMS, Form, SAMPLES, WIDTH, noise, order};

const LAYERS: [usize; 3] = [WIDTH, 37, CLASSES];
/// Batches of one form each: of one row in each block at most, of whole tiles with a tail, of no whole tile, and of most of the
/// samples.
const BATCHES: [(usize, Option<u32>); 4] = [(64, None), (128, Some(8)), (41, Some(16)), (7, Some(8))];
const EPOCHS: usize = 2;

const OPTIONS: ResidentOptions = ResidentOptions {
    device: 0,
    precision: Precision::F32,
    batch: 128,
    team: None,
    blocks: None,
    epochs: None,
};

/// In which precisions, and on what: `floats` or pixels, or which of the forms first.
const PRECISION: &str = "KILN_TEST_PRECISION";
const FORM: &str = "KILN_TEST_FORM";

/// What some epochs come to: losses, evaluations and models, one each.
type Outcome = Vec<(Epoch, Evaluation, Mlp)>;

fn train(mut trainer: Trainer<'_>, batch: usize, test: &Samples<'_>) -> Outcome {
    let outcome = seen_through(trainer.epochs(EPOCHS, batch, order), test);
    assert_eq!(outcome.len(), EPOCHS);
    outcome
}

fn seen_through(mut epochs: Epochs<'_, '_>, test: &Samples<'_>) -> Outcome {
    let mut outcome = Vec::new();
    while let Some(trained) = epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap() {
        outcome.push((trained.epoch, epochs.evaluate(test).unwrap(), epochs.model().unwrap()));
    }
    outcome
}

fn resident(job: Job<'_>, batch: usize, options: ResidentOptions) -> Outcome {
    let test = job.train.first(SAMPLES - 3);
    train(Trainer::resident(job, &ResidentOptions { batch, ..options }).unwrap(), batch, &test)
}

fn host(job: Job<'_>, batch: usize) -> Outcome {
    let test = job.train.first(SAMPLES - 3);
    train(Trainer::host(job, 1).unwrap(), batch, &test)
}

fn assert_close(got: &Outcome, expected: &Outcome, tolerance: f64, what: &str) {
    for ((got, got_test, got_model), (expected, expected_test, expected_model)) in got.iter().zip(expected) {
        assert_eq!(got.steps, expected.steps);
        let gaps = [got.loss - expected.loss, got_test.loss - expected_test.loss].map(f64::abs);
        assert!(gaps.iter().all(|gap| *gap <= tolerance), "{what}: losses differ by {gaps:?}");
        for (got, expected) in got_model.tensors().iter().zip(expected_model.tensors()) {
            let squares =
                |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
            let gap = squares(&mut got.data.iter().zip(&expected.data).map(|(a, b)| a - b));
            let ratio = (gap / squares(&mut expected.data.iter().copied())).sqrt();
            assert!(ratio <= tolerance, "{what}: {}: {ratio}", got.name);
        }
    }
}

#[test]
fn results_are_the_hosts() {
    on_device!();
    let data = Data::new();
    for (form, (batch, cluster)) in FORMS.into_iter().zip(BATCHES) {
        let options = ResidentOptions { blocks: cluster, ..OPTIONS };
        let got = resident(data.job(form, &LAYERS), batch, options);
        let what = format!("{form:?}, batch {batch}, cluster {cluster:?}");
        assert_close(&got, &host(data.job(form, &LAYERS), batch), 1e-5, &what);
    }
}

/// Widths at and around what a block holds, one class, all sixteen, and every option of SGD.
#[test]
fn results_are_the_hosts_for_other_models() {
    on_device!();
    let data = Data::new();
    let values: Vec<f32> = data.values.iter().cycle().take(SAMPLES * 16).copied().collect();
    let sgd = Sgd { lr: 0.03, momentum: 0.8, dampening: 0.1, weight_decay: 0.01, nesterov: false };
    let cases = [
        (1, 1, None, Sgd { lr: 0.05, ..Sgd::default() }),
        (64, 16, Some(8), sgd),
        (65, 15, None, Sgd { dampening: 0.0, nesterov: true, ..sgd }),
        (128, 9, Some(16), sgd),
        (129, 8, None, sgd),
        (256, 7, None, sgd),
    ];
    for (hidden, classes, cluster, sgd) in cases {
        let job = || Job {
            model: Mlp::new(&[WIDTH, hidden, classes], 5).unwrap(),
            loss: Loss::MeanSquaredError,
            optimizer: sgd.into(),
            schedule: Schedule::default(),
            train: Samples::floats(&data.floats, WIDTH, Targets::Values(&values[..SAMPLES * classes]))
                .unwrap(),
        };
        let got = resident(job(), 97, ResidentOptions { blocks: cluster, ..OPTIONS });
        assert_close(
            &got,
            &host(job(), 97),
            1e-5,
            &format!("{hidden} hidden, {classes} classes, {cluster:?}"),
        );
    }
}

/// A step and a tail of pixels and of floats so wide; what the engine refused, if it did.
fn assert_host_of_width(width: usize, hidden: usize, options: ResidentOptions) -> [Option<String>; 2] {
    let data = Data::new();
    let pixels: Vec<u8> = data.pixels.iter().cycle().take(SAMPLES * width).copied().collect();
    let floats: Vec<f32> = data.floats.iter().cycle().take(SAMPLES * width).map(|v| v - 0.3).collect();
    let labels = Targets::Labels(&data.labels);
    let forms = [Samples::pixels(&pixels, width, labels), Samples::floats(&floats, width, labels)];
    forms.map(|train| {
        let job = || Job {
            model: Mlp::new(&[width, hidden, CLASSES], 5).unwrap(),
            loss: Loss::CrossEntropy,
            optimizer: Sgd { lr: 0.05, momentum: 0.9, ..Sgd::default() }.into(),
            schedule: Schedule::default(),
            train: train.clone().unwrap(),
        };
        let rows = &order(3)[..options.batch + 13];
        let run = |mut trainer: Trainer<'_>| {
            let epoch = trainer.epoch(rows, options.batch).unwrap();
            vec![(epoch, Evaluation { loss: 0.0, accuracy: None }, trainer.model().unwrap())]
        };
        match Trainer::resident(job(), &options) {
            Ok(trainer) => {
                let expected = run(Trainer::host(job(), 1).unwrap());
                assert_close(&run(trainer), &expected, 1e-5, &format!("width {width}, {options:?}"));
                None
            }
            Err(error) => Some(error.to_string()),
        }
    })
}

/// Inputs up to the widest, of pixels and of floats: these in parts, as three terms of a batch are too much for shared memory; of the
/// widest a slot alone fits.
#[test]
fn results_are_the_hosts_for_wide_inputs() {
    on_device!(&[], &[("KILN_SIM_ARCH", "sm_80")], &[("KILN_SIM_ARCH", "sm_86")]);
    let small = kiln_engine::inspect(0).unwrap().shared_bytes < 163 << 10;
    for (width, batch) in [(1024, 128), (1000, 64), (129, 96)] {
        let [pixels, floats] = assert_host_of_width(width, 130, ResidentOptions { batch, ..OPTIONS });
        assert_eq!(pixels, None);
        if small && width >= 1000 {
            // Of such devices a block does not hold three terms of the least part of a batch.
            let refused = floats.unwrap_or_default();
            assert!(refused.contains("shared memory of a block"), "{refused}");
        } else {
            assert_eq!(floats, None);
        }
    }
}

/// A warp has one tile of 16 inputs in eight. Of each number of tiles, the kernels have code of its own: none, one, .. eight, for 8 units a
/// block and, in two or four parts, for 16.
#[test]
fn results_are_the_hosts_for_every_number_of_tiles() {
    on_device!();
    let device = kiln_engine::inspect(0).unwrap();
    if !device.clusters || device.shared_bytes < 163 << 10 {
        return; // some of these are refused there
    }
    for width in [201, 473, 713, 970] {
        for (hidden, team) in
            [(100, Team::Cluster), (100, Team::Grid), (250, Team::Cluster), (250, Team::Grid)]
        {
            let options = ResidentOptions { team: Some(team), batch: 64, ..OPTIONS };
            let refused = assert_host_of_width(width, hidden, options);
            assert_eq!(refused, [None, None], "width {width}");
        }
    }
    let refused = assert_host_of_width(40, 100, ResidentOptions { batch: 64, ..OPTIONS });
    assert_eq!(refused, [None, None], "warps without a tile");
}

/// All forms and precisions on either team of one device: the same bits.
#[test]
fn a_grid_gives_the_bits_of_a_cluster() {
    on_device!();
    if !kiln_engine::inspect(0).unwrap().clusters {
        return; // and grids are those of other tests
    }
    let data = Data::new();
    for (form, (batch, blocks)) in FORMS.into_iter().zip(BATCHES) {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            let options = |team| ResidentOptions { team: Some(team), blocks, precision, batch, ..OPTIONS };
            let clusters = Trainer::resident(data.job(form, &LAYERS), &options(Team::Cluster));
            if let Err(error @ Error::Resident { what: "blocks", .. }) = clusters {
                println!("{error}"); // sm_120 has clusters of eight at most
                continue;
            }
            let run = |team| resident(data.job(form, &LAYERS), batch, options(team));
            assert_eq!(run(Team::Grid), run(Team::Cluster), "{form:?}, {precision}");
        }
    }
}

/// More runs than the device trains at once, asked for together or not, in launches one after the other: each the bits of the run alone.
#[test]
fn a_sweep_on_a_grid_takes_several_launches() {
    on_device!(&[("KILN_SIM_ARCH", "sm_86")]);
    let data = Data::new();
    let lrs: Vec<f64> = (0..9).map(|run| 0.01 + 0.01 * f64::from(run)).collect();
    let job = |lr| Job { optimizer: Sgd { lr, ..Sgd::default() }.into(), ..data.job(Form::Pixels, &LAYERS) };
    let options = ResidentOptions { batch: 64, blocks: Some(16), ..OPTIONS };
    let mut sweep = Sweep::resident(lrs.iter().map(|&lr| Ok(job(lr))), &options).unwrap();
    let said = sweep.describe();
    let at_once: usize = said.split_once("of which ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!((1..9).contains(&at_once) && said.ends_with("16 cooperative blocks each"), "{said}");
    let rows = order(0);
    assert_eq!(sweep.at_once(), at_once);
    let (stop, orders) = (AtomicBool::new(false), |runs: usize| vec![vec![rows.clone()]; runs]);
    assert_eq!(sweep.epochs(0, &orders(9), 64, &stop).unwrap().len(), 9);
    let refused = sweep.epochs(2, &orders(8), 64, &stop).unwrap_err().to_string();
    assert!(refused.contains("runs of a sweep: expected at most 7 from run 2 on, found 8"), "{refused}");
    // Once more over some of them.
    assert_eq!(sweep.epochs(7, &orders(2), 64, &stop).unwrap().len(), 2);
    for (run, epochs) in [(0, 1), (at_once, 1), (6, 1), (7, 2), (8, 2)] {
        let mut alone = Trainer::resident(job(lrs[run]), &options).unwrap();
        for _ in 0..epochs {
            alone.epoch(&rows, 64).unwrap();
        }
        assert_eq!(sweep.model(run).unwrap(), alone.model().unwrap(), "run {run}");
    }
}

#[test]
fn a_launch_of_several_epochs_gives_the_bits_of_launches_of_one() {
    on_device!();
    let data = Data::new();
    for form in [Form::Pixels, Form::FloatsToValues] {
        let run = |epochs| resident(data.job(form, &LAYERS), 64, ResidentOptions { epochs, ..OPTIONS });
        let together = run(None);
        assert_eq!(together, run(Some(1)), "{form:?}");
        assert_eq!(together, run(None), "{form:?}: again");
    }
}

/// Jobs of every kernel of clusters, for one seed: blocks and hidden units, of which a block holds 8 or 16.
const SHAPES: [(u32, usize); 4] = [(8, 17), (16, 17), (8, 65), (16, 129)];

/// Every kernel of clusters in f32 on fifty random schedules, in tf32 and bf16 on twelve of them each, on clusters of 8 and of 16, of
/// both losses: no finding, and one model.
#[test]
fn fifty_schedules_of_every_kernel_give_the_same_bits() {
    if !sim::on_device() {
        let lines = sim::same_bits(test_name!(), 50, |seed| {
            let precision = ["f32 tf32", "f32", "f32 bf16", "f32"][seed % 4];
            vec![(PRECISION, precision), (FORM, ["0", "1", "2", "3"][seed / 4 % 4])]
        });
        // Each shape on each form, in each precision.
        assert_eq!(lines, 4 * 4 * 3);
        return;
    }
    let data = Data::new();
    let first: usize = std::env::var(FORM).map_or(0, |first| first.parse().unwrap());
    for precision in precisions() {
        for (at, (blocks, hidden)) in SHAPES.into_iter().enumerate() {
            let form = FORMS[(first + at) % FORMS.len()];
            let job = data.job(form, &[WIDTH, hidden, CLASSES]);
            let (rows, blocks) = (order(0), Some(blocks));
            let bits = bits_of_an_epoch(
                job,
                &rows[..60],
                ResidentOptions { precision, blocks, batch: 24, ..OPTIONS },
            );
            println!("bits on {blocks:?} blocks in {precision} of {form:?}, {hidden} units {bits:#018x}");
        }
    }
}

/// So wide that a block of sm_120 does not hold two batches: the batch in parts.
#[test]
fn twenty_schedules_of_parts_of_a_batch_give_the_same_bits() {
    if !sim::on_device() {
        let lines = sim::same_bits(test_name!(), 20, |seed| {
            let precision = ["f32", "tf32", "bf16"][seed % 3];
            let form = if seed % 2 == 0 { "floats" } else { "pixels" };
            vec![(PRECISION, precision), (FORM, form), ("KILN_SIM_ARCH", "sm_120")]
        });
        assert_eq!(lines, 3 * 2);
        return;
    }
    let (width, samples) = (400, 150);
    let data = Data::new();
    let pixels: Vec<u8> = data.pixels.iter().cycle().take(samples * width).copied().collect();
    let floats: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 300.0).collect();
    let form = std::env::var(FORM).unwrap_or_default();
    for precision in precisions() {
        let labels = Targets::Labels(&data.labels[..samples]);
        let train = match form == "floats" {
            true => Samples::floats(&floats, width, labels),
            false => Samples::pixels(&pixels, width, labels),
        };
        let job = Job {
            train: train.unwrap(),
            model: Mlp::new(&[width, 17, CLASSES], 1).unwrap(),
            ..data.job(Form::Pixels, &LAYERS)
        };
        let rows: Vec<u32> = (0..samples as u32).rev().collect();
        let options = ResidentOptions { precision, blocks: Some(8), batch: 64, ..OPTIONS };
        let bits = bits_of_an_epoch(job, &rows, options);
        println!("bits in {precision} of {form} {bits:#018x}");
    }
}

/// Those that a test is to run in.
fn precisions() -> Vec<Precision> {
    let names = std::env::var(PRECISION).unwrap_or_else(|_| "f32".into());
    names.split(' ').map(|name| name.parse().unwrap()).collect()
}

/// The bits of the model after an epoch of these rows on a cluster.
fn bits_of_an_epoch(job: Job<'_>, rows: &[u32], options: ResidentOptions) -> u64 {
    let options = ResidentOptions { team: Some(Team::Cluster), ..options };
    let mut trainer = Trainer::resident(job, &options).unwrap();
    trainer.epoch(rows, options.batch).unwrap();
    let model = trainer.model().unwrap();
    let values = model.tensors().iter().flat_map(|tensor| &tensor.data);
    kiln_tests::hash(values.map(|value| value.to_bits().into()))
}

/// A step whose every product and sum is exact, in every precision, so that float64 gives its bits.
struct Exact {
    layers: [usize; 3],
    x: Vec<f32>,
    y: Vec<f32>,
    model: Mlp,
}

impl Exact {
    const ROWS: usize = 32;
    const LR: f64 = 0.5;

    /// Small whole numbers, most of them zeros.
    fn new(hidden: usize) -> Self {
        let layers = [WIDTH, hidden, CLASSES];
        let mut noise = noise(5);
        let mut sparse = |len: usize| -> Vec<f32> {
            let draw = |_| [-1.0, 1.0].get(noise() as usize >> 4).copied().unwrap_or(0.0);
            (0..len).map(draw).collect()
        };
        let x = sparse(Self::ROWS * WIDTH).into_iter().map(f32::abs).collect();
        let y = sparse(Self::ROWS * CLASSES);
        let shapes = Mlp::new(&layers, 0).unwrap();
        let tensor = |tensor: &Tensor| Tensor { data: sparse(tensor.data.len()), ..tensor.clone() };
        let model = Mlp::from_tensors(&layers, shapes.tensors().iter().map(tensor)).unwrap();
        Self { layers, x, y, model }
    }

    fn job(&self) -> Job<'_> {
        let train = Samples::floats(&self.x, WIDTH, Targets::Values(&self.y)).unwrap();
        let optimizer = Sgd { lr: Self::LR, ..Sgd::default() }.into();
        let (model, schedule) = (self.model.clone(), Schedule::default());
        Job { model, loss: Loss::MeanSquaredError, optimizer, schedule, train }
    }

    /// The loss, and the parameters after one step of plain gradient descent over all rows.
    fn in_float64(&self) -> (f64, Vec<Vec<f64>>) {
        let [k, h, c] = self.layers;
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| value.into()).collect() };
        let mut parameters: Vec<_> = self.model.tensors().iter().map(|tensor| wide(&tensor.data)).collect();
        let [w1, b1, w2, b2] = &parameters[..] else { panic!("two layers") };
        let mut gradients: Vec<_> = parameters.iter().map(|values| vec![0.0; values.len()]).collect();
        let mut loss = 0.0;
        for (x, y) in wide(&self.x).chunks(k).zip(wide(&self.y).chunks(c)) {
            let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            let hidden: Vec<_> = (0..h).map(|u| (b1[u] + dot(&w1[u * k..][..k], x)).max(0.0)).collect();
            let off: Vec<_> = (0..c).map(|j| b2[j] + dot(&w2[j * h..][..h], &hidden) - y[j]).collect();
            loss += dot(&off, &off) / 2.0;
            for u in 0..h {
                let dh = (0..c).map(|j| off[j] * w2[j * h + u]).sum::<f64>() * f64::from(hidden[u] > 0.0);
                assert!(dh.abs() < 256.0, "{dh} is no bfloat16");
                (0..k).for_each(|i| gradients[0][u * k + i] += dh * x[i]);
                gradients[1][u] += dh;
                (0..c).for_each(|j| gradients[2][j * h + u] += off[j] * hidden[u]);
            }
            (0..c).for_each(|j| gradients[3][j] += off[j]);
        }
        for (value, gradient) in parameters.iter_mut().flatten().zip(gradients.iter().flatten()) {
            *value -= Self::LR * gradient / Self::ROWS as f64;
        }
        (loss / Self::ROWS as f64, parameters)
    }
}

/// Of floats, by every kernel of clusters and of grids: bit for bit.
#[test]
fn whole_numbers_are_float64s() {
    on_device!();
    for (blocks, hidden) in SHAPES {
        let exact = Exact::new(hidden);
        let (loss, parameters) = exact.in_float64();
        for team in [Team::Cluster, Team::Grid] {
            for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
                let what = format!("a {team} of {blocks} blocks, {hidden} units, {precision}");
                let options = ResidentOptions {
                    precision,
                    batch: Exact::ROWS,
                    team: Some(team),
                    blocks: Some(blocks),
                    ..OPTIONS
                };
                let mut trainer = Trainer::resident(exact.job(), &options).unwrap();
                let rows: Vec<u32> = (0..Exact::ROWS as u32).collect();
                assert_eq!(trainer.epoch(&rows, Exact::ROWS).unwrap().loss, loss, "{what}");
                for (found, expected) in trainer.model().unwrap().tensors().iter().zip(&parameters) {
                    let wide: Vec<f64> = found.data.iter().map(|&value| value.into()).collect();
                    assert!(wide == *expected, "{what}: {}", found.name);
                }
            }
        }
    }
}

#[test]
fn gradients_are_the_hosts_and_change_nothing() {
    on_device!();
    let data = Data::new();
    for form in FORMS {
        let mut trainer = Trainer::resident(data.job(form, &LAYERS), &OPTIONS).unwrap();
        trainer.epoch(&order(0), 64).unwrap();
        let before = trainer.model().unwrap();
        let mut host = Trainer::host(Job { model: before.clone(), ..data.job(form, &LAYERS) }, 1).unwrap();
        // More than a launch takes: on the graph engine's kernels.
        for rows in [&order(1)[..61], &order(1)[..128], &order(1)[..200]] {
            let (got, expected) = (trainer.gradients(rows).unwrap(), host.gradients(rows).unwrap());
            assert!((got.loss - expected.loss).abs() <= 1e-6, "{form:?}: {} {}", got.loss, expected.loss);
            for (got, expected) in got.tensors.iter().zip(&expected.tensors) {
                let off = got.data.iter().zip(&expected.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let most = expected.data.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                assert!(off <= 1e-5 * most, "{form:?}: {}: {off} of {most}", got.name);
            }
        }
        assert_eq!(trainer.model().unwrap(), before);
    }
}

/// The named precisions train too, a little differently, and not worse than a hundredth.
#[test]
fn other_precisions_train() {
    on_device!();
    let data = Data::new();
    for form in [Form::Pixels, Form::Floats] {
        let run = |precision| resident(data.job(form, &LAYERS), 64, ResidentOptions { precision, ..OPTIONS });
        let full = run(Precision::F32);
        for precision in [Precision::Tf32, Precision::Bf16] {
            let got = run(precision);
            assert_ne!(got[1].2, full[1].2, "{precision} rounds its operands");
            assert!((got[1].0.loss - full[1].0.loss).abs() <= 0.01, "{form:?} {precision}: {got:?}");
        }
    }
}

/// Operands rounded to TF32 on either engine: the same gradients within what that rounding does, 2^-11 of an operand, and not
/// those of float32.
#[test]
fn tf32_of_pixels_is_the_graph_engines() {
    on_device!();
    let data = Data::new();
    let rows = &order(2)[..64];
    let gradients = |precision| {
        let options = ResidentOptions { precision, ..OPTIONS };
        Trainer::resident(data.job(Form::Pixels, &LAYERS), &options).unwrap().gradients(rows).unwrap()
    };
    let (got, full) = (gradients(Precision::Tf32), gradients(Precision::F32));
    let options = GraphOptions { precision: Precision::Tf32, ..GraphOptions::default() };
    let expected =
        Trainer::graph(data.job(Form::Pixels, &LAYERS), &options).unwrap().gradients(rows).unwrap();
    for ((got, expected), full) in got.tensors.iter().zip(&expected.tensors).zip(&full.tensors) {
        let most = expected.data.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let off = |other: &[f32]| got.data.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(
            off(&expected.data) <= 2.0 * most / 2048.0,
            "{}: {} of {most}",
            got.name,
            off(&expected.data)
        );
        assert!(off(&full.data) > 1e-6 * most, "{}: rounds nothing", got.name);
    }
}

#[test]
fn jobs_that_do_not_fit_are_refused() {
    let data = Data::new();
    let refused = |layers: &[usize], batch: usize| {
        resident_fits(&data.job(Form::Pixels, layers), batch).unwrap_err().to_string()
    };
    assert!(refused(&[WIDTH, 8, 8, CLASSES], 64).contains("hidden layers: expected exactly one, found 2"));
    assert!(refused(&[WIDTH, CLASSES], 64).contains("found 0"));
    assert!(refused(&[WIDTH, 257, CLASSES], 64).contains("hidden units: expected at most 256, found 257"));
    assert!(refused(&[WIDTH, 8, 17], 64).contains("classes: expected at most 16, found 17"));
    assert!(refused(&[1025, 8, CLASSES], 64).contains("inputs: expected at most 1024, found 1025"));
    assert!(refused(&LAYERS, 129).contains("samples a batch: expected at most 128, found 129"));
    let adamw = Job { optimizer: AdamW::default().into(), ..data.job(Form::Pixels, &LAYERS) };
    assert!(
        resident_fits(&adamw, 64).unwrap_err().to_string().contains("optimizer: expected SGD, found AdamW")
    );
    assert_eq!(resident_fits(&data.job(Form::Pixels, &LAYERS), 128), Ok(()));
}

#[test]
fn a_batch_that_was_not_announced_is_refused() {
    on_device!();
    let data = Data::new();
    let options = ResidentOptions { batch: 32, ..OPTIONS };
    let mut trainer = Trainer::resident(data.job(Form::Pixels, &LAYERS), &options).unwrap();
    let error = trainer.epoch(&order(0), 33).unwrap_err();
    assert!(matches!(error, Error::Resident { what: "samples a batch", .. }), "{error}");
    trainer.epoch(&order(0)[..20], 33).unwrap(); // one batch of 20
}

/// Both teams, all forms and precisions have kernels that count cycles.
#[test]
fn every_phase_of_every_job_takes_time() {
    on_device!();
    if !kiln_engine::inspect(0).unwrap().clusters {
        return; // and grids are those of other tests
    }
    let data = Data::new();
    let precisions = [Precision::F32, Precision::Tf32, Precision::Bf16, Precision::F32];
    for team in [Team::Cluster, Team::Grid] {
        for (form, precision) in FORMS.into_iter().zip(precisions) {
            let options = ResidentOptions { precision, team: Some(team), batch: 64, ..OPTIONS };
            let orders = [order(0), order(1)];
            let profile = profile_phases(data.job(form, &LAYERS), &options, &orders).unwrap();
            let named = if team == Team::Cluster { "one cluster of" } else { "cooperative blocks" };
            assert!(profile.engine.contains(named), "{}", profile.engine);
            assert_eq!(profile.steps, 2 * SAMPLES.div_ceil(64));
            for phase in &profile.phases {
                assert!(0.0 < phase.range.0 && phase.range.0 <= phase.mean, "{team} {form:?}: {phase:?}");
            }
        }
        // Sixteen units a block have kernels of their own.
        for form in [Form::Pixels, Form::Floats] {
            let options = ResidentOptions { team: Some(team), blocks: Some(8), batch: 64, ..OPTIONS };
            let profile =
                profile_phases(data.job(form, &[WIDTH, 70, CLASSES]), &options, &[order(0)]).unwrap();
            assert!(profile.engine.contains("16 units each"), "{}", profile.engine);
            assert!(profile.phases.iter().all(|phase| phase.range.0 > 0.0), "{:?}", profile.phases);
        }
    }
}

/// Devices that have no clusters train on grids, with the bits of those that have; asked for a cluster, they refuse.
#[test]
fn devices_without_clusters_train_on_grids() {
    on_device!(&[("KILN_SIM_ARCH", "sm_80")], &[("KILN_SIM_ARCH", "sm_86")]);
    let data = Data::new();
    for (form, (batch, blocks)) in FORMS.into_iter().zip(BATCHES) {
        let job = || data.job(form, &LAYERS);
        let got = resident(job(), batch, ResidentOptions { blocks, ..OPTIONS });
        assert_close(&got, &host(job(), batch), 1e-5, &format!("{form:?}, batch {batch}, {blocks:?} blocks"));
    }
    let options = ResidentOptions { team: Some(Team::Cluster), ..OPTIONS };
    let error =
        Trainer::resident(data.job(Form::Pixels, &LAYERS), &options).err().expect("no clusters").to_string();
    assert!(
        error.contains("thread-block clusters: expected a device that has them (sm_90 or newer)"),
        "{error}"
    );
}

#[test]
fn a_loss_that_is_not_finite_is_an_error_that_names_its_step() {
    on_device!();
    let data = Data::new();
    let mut job = data.job(Form::FloatsToValues, &LAYERS);
    job.optimizer = Sgd { lr: 1e30, ..Sgd::default() }.into();
    let mut trainer = Trainer::resident(job, &OPTIONS).unwrap();
    let mut epochs = trainer.epochs(3, 64, order);
    let error = epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Diverged { step: 1..=3, .. }), "{error}");
    assert_eq!(epochs.next_with(&AtomicBool::new(false), &mut |_| ()), Ok(None));
}

/// What each epoch comes to where it is known that all are evaluated: the engine trains on meanwhile.
fn train_ahead(trainer: &mut Trainer<'_>, epochs: usize, test: &Samples<'_>) -> Outcome {
    seen_through(trainer.epochs(epochs, 64, order).evaluating(test).unwrap(), test)
}

/// The same bits as from one launch, on every schedule and on both teams; the order of streams is judged by the simulator.
#[test]
fn epochs_trained_while_others_are_evaluated_have_the_same_bits() {
    on_device!(&[], &[("KILN_SIM_SEED", "11")], &[("KILN_SIM_ARCH", "sm_80")]);
    let data = Data::new();
    for form in [Form::Pixels, Form::FloatsToValues] {
        let job = || data.job(form, &LAYERS);
        let test = job().train.first(SAMPLES - 3);
        let plain = seen_through(Trainer::resident(job(), &OPTIONS).unwrap().epochs(5, 64, order), &test);
        let mut trainer = Trainer::resident(job(), &OPTIONS).unwrap();
        assert_eq!(train_ahead(&mut trainer, 5, &test), plain, "{form:?}");
        // Once more and on its own: nothing of the first five is left behind.
        let (again, alone) = (train_ahead(&mut trainer, 2, &test), trainer.epoch(&order(0), 64).unwrap());
        let mut trainer = Trainer::resident(job(), &OPTIONS).unwrap();
        for epoch in 0..5 {
            trainer.epoch(&order(epoch), 64).unwrap();
        }
        assert_eq!(again[0].0, trainer.epoch(&order(0), 64).unwrap(), "{form:?}");
        assert_eq!(again[1].0, trainer.epoch(&order(1), 64).unwrap(), "{form:?}");
        assert_eq!(alone, trainer.epoch(&order(0), 64).unwrap(), "{form:?}");
    }
}

/// The states after each epoch are the same from one launch, from a launch an epoch, and where it is trained on meanwhile; and
/// training goes on from each to the same bits. In pixels and floats, on both teams, with and without momentum.
#[test]
fn training_goes_on_from_a_state() {
    on_device!(&[], &[("KILN_SIM_ARCH", "sm_80")]);
    const EPOCHS: usize = 4;
    let data = Data::new();
    let momentum = Sgd { lr: 0.05, momentum: 0.9, dampening: 0.2, ..Sgd::default() };
    for (form, sgd) in [(Form::Pixels, momentum), (Form::Floats, Sgd { momentum: 0.0, ..momentum })] {
        let trainer = |seed| {
            let model = Mlp::new(&LAYERS, seed).unwrap();
            let schedule = Curve::Step { every_steps: 7, gamma: 0.8 }.into();
            let job = Job { model, optimizer: sgd.into(), schedule, ..data.job(form, &LAYERS) };
            Trainer::resident(job, &OPTIONS).unwrap()
        };
        let states = |mut epochs: Epochs<'_, '_>| {
            let mut states = Vec::new();
            while epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().is_some() {
                states.push(epochs.state().unwrap());
            }
            states
        };
        let mut plain = trainer(3);
        let mut expected = Vec::new();
        for epoch in 0..EPOCHS {
            plain.epoch(&order(epoch), 64).unwrap();
            expected.push(plain.state().unwrap());
        }
        let steps: Vec<u64> = expected.iter().map(|state| state.steps).collect();
        assert_eq!(steps, [5, 10, 15, 20]);
        assert_eq!(states(trainer(3).epochs(EPOCHS, 64, order)), expected, "one launch");
        let test = data.job(form, &LAYERS).train.first(40);
        let ahead = |trainer: &mut Trainer<'_>, epochs, first: usize| {
            states(trainer.epochs(epochs, 64, |epoch| order(first + epoch)).evaluating(&test).unwrap())
        };
        assert_eq!(ahead(&mut trainer(3), EPOCHS, 0), expected, "ahead");

        // One that has trained otherwise, and two epochs ahead of what was seen.
        let mut resumed = trainer(4);
        let mut epochs = resumed.epochs(3, 32, order).evaluating(&test).unwrap();
        epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().unwrap();
        std::mem::forget(epochs);
        resumed.restore(&expected[0]).unwrap();
        assert_eq!(resumed.state().unwrap(), expected[0]);
        assert_eq!(ahead(&mut resumed, EPOCHS - 1, 1), expected[1..], "from the first on, ahead");
        resumed.restore(&expected[1]).unwrap();
        let rest = states(resumed.epochs(EPOCHS - 2, 64, |epoch| order(2 + epoch)));
        assert_eq!(rest, expected[2..], "from the second on, one launch");
        assert_eq!(resumed.state().unwrap(), expected[EPOCHS - 1]);
    }
}

/// A state is taken over whatever has become of the trainer: also where the velocities that nothing uses are not finite.
#[test]
fn a_diverged_run_can_be_restored() {
    on_device!(&[], &[("KILN_SIM_ARCH", "sm_80")]);
    let data = Data::new();
    for momentum in [0.0, 0.9] {
        let sudden = Curve::Step { every_steps: 5, gamma: 1e30 }.into();
        let optimizer = Sgd { lr: 0.05, momentum, dampening: 0.2, ..Sgd::default() }.into();
        let job = Job { optimizer, schedule: sudden, ..data.job(Form::FloatsToValues, &LAYERS) };
        let mut trainer = Trainer::resident(job.clone(), &OPTIONS).unwrap();
        let first = trainer.state().unwrap();
        let good = trainer.epoch(&order(0), 64).unwrap();
        let mut host = Trainer::host(job, 1).unwrap();
        let gap = (good.loss - host.epoch(&order(0), 64).unwrap().loss).abs();
        assert!(gap <= 1e-5, "momentum {momentum}, with dampening: {gap}");
        let state = trainer.state().unwrap();
        assert!(matches!(trainer.epoch(&order(1), 64), Err(Error::Diverged { .. })));
        trainer.restore(&first).unwrap();
        assert_eq!(trainer.epoch(&order(0), 64).unwrap(), good);
        assert_eq!(trainer.state().unwrap(), state);
    }
}

/// Whoever leaves early finds the trainer after the epochs that were under way.
#[test]
fn epochs_that_are_left_early_were_trained() {
    on_device!();
    let data = Data::new();
    let job = || data.job(Form::Pixels, &LAYERS);
    let test = job().train.first(40);
    let mut models = Vec::new();
    let mut plain = Trainer::resident(job(), &OPTIONS).unwrap();
    for epoch in 0..5 {
        plain.epoch(&order(epoch), 64).unwrap();
        models.push((plain.evaluate(&test).unwrap(), plain.state().unwrap()));
    }
    let seen = |trainer: &mut Trainer<'_>| (trainer.evaluate(&test).unwrap(), trainer.state().unwrap());

    let mut trainer = Trainer::resident(job(), &OPTIONS).unwrap();
    let mut epochs = trainer.epochs(5, 64, order).evaluating(&test).unwrap();
    epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().unwrap();
    assert_eq!((epochs.evaluate(&test).unwrap(), epochs.state().unwrap()), models[0]);
    drop(epochs);
    assert_eq!(seen(&mut trainer), models[2], "two were under way");
    trainer.epoch(&order(3), 64).unwrap();
    assert_eq!(seen(&mut trainer), models[3]);

    // Whoever forgets them finds the same, and no samples that were announced for them.
    let mut trainer = Trainer::resident(job(), &OPTIONS).unwrap();
    let mut epochs = trainer.epochs(5, 64, order).evaluating(&test).unwrap();
    epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().unwrap();
    std::mem::forget(epochs);
    let mut epochs = trainer.epochs(1, 64, |_| order(3)).evaluating(&test).unwrap();
    epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().unwrap();
    drop(epochs);
    assert_eq!(seen(&mut trainer), models[3]);

    // Of one launch, too.
    let mut trainer = Trainer::resident(job(), &OPTIONS).unwrap();
    let mut epochs = trainer.epochs(4, 64, order);
    epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().unwrap();
    std::mem::forget(epochs);
    assert_eq!(seen(&mut trainer), models[3]);

    // Whoever wishes to stop is handed those that are under way.
    let mut trainer = Trainer::resident(job(), &OPTIONS).unwrap();
    let mut epochs = trainer.epochs(5, 64, order).evaluating(&test).unwrap();
    epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().unwrap();
    for model in &models[1..3] {
        epochs.next_with(&AtomicBool::new(true), &mut |_| ()).unwrap().unwrap();
        assert_eq!((epochs.evaluate(&test).unwrap(), epochs.state().unwrap()), *model);
    }
    assert_eq!(epochs.next_with(&AtomicBool::new(true), &mut |_| ()), Ok(None));
    drop(epochs);
    assert_eq!(seen(&mut trainer), models[2]);
}

/// Epochs of fewer rows than a batch, between larger ones; an order that is wrong; and whoever announces late.
#[test]
fn epochs_under_way_may_differ_and_fail_in_their_turn() {
    on_device!(&[], &[("KILN_SIM_ARCH", "sm_80")]);
    let data = Data::new();
    let job = || data.job(Form::Pixels, &LAYERS);
    let test = job().train.first(40);
    let lengths = [SAMPLES, 20, SAMPLES, 90, SAMPLES];
    let orders = |epoch: usize| order(epoch)[..lengths[epoch]].to_vec();
    let mut plain = Trainer::resident(job(), &OPTIONS).unwrap();
    plain.gradients(&order(0)[..9]).unwrap();
    let expected: Vec<Epoch> = (0..5).map(|epoch| plain.epoch(&orders(epoch), 64).unwrap()).collect();

    let mut trainer = Trainer::resident(job(), &OPTIONS).unwrap();
    trainer.gradients(&order(0)[..9]).unwrap();
    let mut epochs = trainer.epochs(5, 64, orders).evaluating(&test).unwrap();
    for expected in &expected {
        let trained = epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().unwrap();
        assert_eq!(trained.epoch, *expected);
        assert!(trained.device_seconds.is_some_and(|seconds| (0.0..1.0).contains(&seconds)), "{trained:?}");
        epochs.evaluate(&test).unwrap();
    }
    drop(epochs);
    assert_eq!(trainer.model().unwrap(), plain.model().unwrap());

    let wrong = |epoch: usize| if epoch == 1 { vec![SAMPLES as u32] } else { order(epoch) };
    let mut epochs = trainer.epochs(3, 64, wrong).evaluating(&test).unwrap();
    assert!(epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().is_some(), "the first is right");
    let error = epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Order { .. }), "{error}");
    assert_eq!(epochs.next_with(&AtomicBool::new(false), &mut |_| ()), Ok(None));
    drop(epochs);

    // Several were trained at once before the announcement: they are handed out first.
    let mut trainer = Trainer::resident(job(), &OPTIONS).unwrap();
    let mut epochs = trainer.epochs(3, 64, order);
    assert!(epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().is_some());
    let mut epochs = epochs.evaluating(&test).unwrap();
    for _ in 1..3 {
        assert!(epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().is_some());
    }
    assert_eq!(epochs.next_with(&AtomicBool::new(false), &mut |_| ()), Ok(None));
}

#[test]
fn a_loss_that_is_not_finite_ends_the_epochs_under_way() {
    on_device!();
    let data = Data::new();
    let mut job = data.job(Form::FloatsToValues, &LAYERS);
    job.optimizer = Sgd { lr: 1e30, ..Sgd::default() }.into();
    let test = job.train.first(40);
    let mut trainer = Trainer::resident(job, &OPTIONS).unwrap();
    let mut epochs = trainer.epochs(4, 64, order).evaluating(&test).unwrap();
    let error = epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    assert_eq!(epochs.next_with(&AtomicBool::new(false), &mut |_| ()), Ok(None));
    drop(epochs);
    assert!(matches!(trainer.evaluate(&test), Err(Error::EvaluationDiverged { .. })));
}

#[test]
fn samples_that_do_not_fit_are_refused_before_anything_is_trained() {
    let data = Data::new();
    let mut trainer = Trainer::host(data.job(Form::Pixels, &LAYERS), 1).unwrap();
    let before = trainer.model().unwrap();
    let narrow = Samples::pixels(&data.pixels[..28], 28, Targets::Labels(&data.labels[..1])).unwrap();
    let refused = trainer.epochs(2, 64, order).evaluating(&narrow).err().expect("another width");
    assert!(matches!(refused, Error::SampleWidth { expected: WIDTH, found: 28, .. }), "{refused}");
    assert_eq!(trainer.model().unwrap(), before);
}

#[test]
fn a_wish_to_stop_is_heard_between_epochs() {
    let data = Data::new();
    let mut trainer = Trainer::host(data.job(Form::Pixels, &LAYERS), 1).unwrap();
    let mut epochs = trainer.epochs(3, 64, order);
    assert!(epochs.next_with(&AtomicBool::new(false), &mut |_| ()).unwrap().is_some());
    assert_eq!(epochs.next_with(&AtomicBool::new(true), &mut |_| ()), Ok(None));
}
