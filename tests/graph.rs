//! The graph engine as its users meet it: the same results however steps are submitted, and the host's.

mod synthetic;

use kiln_data::{Shuffle, Split};
use kiln_engine::{
    AdamW, Choices, Epoch, Evaluation, GraphOptions, Inputs, Job, Loss, Mlp, Placement, Precision, Samples,
    Schedule, Sgd, Submission, Targets, Trainer,
};
use kiln_tests::on_device;
use synthetic::{CLASSES, Data, FORMS, Form, SAMPLES, WIDTH, order};

/// 301 samples are 43 steps of 7: two captured stretches of 16, and eleven single steps.
const BATCH: usize = 7;
/// 301 samples are 33 steps of 9 and a tail of 4.
const BATCH_WITH_TAIL: usize = 9;

const LAYERS: [usize; 4] = [WIDTH, 37, 19, CLASSES];

/// The same samples several times.
fn repeated(times: usize) -> Data {
    let Data { pixels, floats, labels, values } = Data::new();
    Data {
        pixels: pixels.repeat(times),
        floats: floats.repeat(times),
        labels: labels.repeat(times),
        values: values.repeat(times),
    }
}

/// What two epochs and an evaluation come to.
type Outcome = (Vec<Epoch>, Evaluation, Mlp);

fn train(mut trainer: Trainer<'_>, batch: usize, test: &Samples<'_>) -> Outcome {
    let epochs = (0..2).map(|epoch| trainer.epoch(&order(epoch), batch).unwrap()).collect();
    (epochs, trainer.evaluate(test).unwrap(), trainer.model().unwrap())
}

fn on_graph(data: &Data, form: Form, batch: usize, options: GraphOptions) -> Outcome {
    with_layers(data, form, &LAYERS, batch, options)
}

fn with_layers(data: &Data, form: Form, layers: &[usize], batch: usize, options: GraphOptions) -> Outcome {
    let job = data.job(form, layers);
    let test = job.train.first(SAMPLES - 3);
    train(Trainer::graph(job, &options).unwrap(), batch, &test)
}

fn with(submission: Submission) -> GraphOptions {
    GraphOptions { submission, ..GraphOptions::default() }
}

#[test]
fn captured_or_not_results_are_equal_bit_for_bit() {
    on_device!();
    let data = Data::new();
    for form in FORMS {
        for batch in [BATCH, BATCH_WITH_TAIL, SAMPLES, 2 * SAMPLES] {
            let captured = on_graph(&data, form, batch, with(Submission::Captured));
            assert_eq!(
                captured,
                on_graph(&data, form, batch, with(Submission::Captured)),
                "{form:?} {batch}: again"
            );
            assert_eq!(
                captured,
                on_graph(&data, form, batch, with(Submission::Direct)),
                "{form:?} {batch}: direct"
            );
        }
        let captured = on_graph(&data, form, BATCH, with(Submission::Captured));
        assert_eq!(
            captured,
            on_graph(&data, form, BATCH, with(Submission::Synchronous)),
            "{form:?}: synchronous"
        );
    }
}

#[test]
fn steps_a_graph_change_nothing() {
    on_device!();
    let data = Data::new();
    let expected = on_graph(&data, Form::Pixels, BATCH, GraphOptions::default());
    for captured_steps in [0, 5, usize::MAX] {
        let choices = Choices { captured_steps, ..Choices::default() };
        let options = GraphOptions { choices, placement: Placement::Streamed, ..GraphOptions::default() };
        let found = on_graph(&data, Form::Pixels, BATCH, options);
        assert_eq!(expected, found, "{captured_steps} steps a graph, streamed");
    }
}

#[test]
fn losses_and_accuracy_are_the_hosts() {
    on_device!();
    let data = Data::new();
    for form in FORMS {
        for batch in [BATCH, BATCH_WITH_TAIL, 2 * SAMPLES] {
            as_on_the_host(&data, form, &LAYERS, batch);
        }
        // A last layer of too many inputs to be one kernel with the loss, and one that has no layer below.
        for layers in [&[WIDTH, 5, 1030, CLASSES][..], &[WIDTH, CLASSES]] {
            as_on_the_host(&data, form, layers, 2 * BATCH);
        }
    }
}

fn as_on_the_host(data: &Data, form: Form, layers: &[usize], batch: usize) {
    let (epochs, evaluation, _) = with_layers(data, form, layers, batch, GraphOptions::default());
    let job = data.job(form, layers);
    let test = job.train.first(SAMPLES - 3);
    let (host_epochs, host_evaluation, _) = train(Trainer::host(job, 1).unwrap(), batch, &test);
    for (got, expected) in epochs.iter().zip(&host_epochs) {
        assert_eq!(got.steps, expected.steps);
        let gap = (got.loss - expected.loss).abs();
        assert!(gap <= 1e-5, "{form:?} {batch}: loss {} for {}", got.loss, expected.loss);
    }
    assert!((evaluation.loss - host_evaluation.loss).abs() <= 1e-5, "{form:?} {batch}");
    assert_eq!(evaluation.accuracy, host_evaluation.accuracy, "{form:?} {batch}");
}

/// A data set of fewer values than a layer above has inputs: layers of both tiles, and more of one than a launch takes.
#[test]
fn little_data_is_enough_for_wide_and_for_many_layers() {
    on_device!();
    let (inputs, labels) = ([0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0f32], [0, 1, 1, 0u8]);
    let samples = Samples::floats(&inputs, 2, Targets::Labels(&labels)).unwrap();
    let (wide, many) = ([2, 1024, 1024, 2], [2, 16, 16, 16, 16, 16, 16, 16, 16, 16, 2]);
    for layers in [&wide[..], &many] {
        let job = || Job {
            model: Mlp::new(layers, 0).unwrap(),
            loss: Loss::CrossEntropy,
            optimizer: Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.into(),
            schedule: Schedule::default(),
            train: samples,
        };
        let run = |mut trainer: Trainer<'_>| trainer.epoch(&[2, 0, 3, 1], 2).unwrap().loss;
        let got = run(Trainer::graph(job(), &GraphOptions::default()).unwrap());
        let expected = run(Trainer::host(job(), 1).unwrap());
        assert!((got - expected).abs() <= 1e-5, "{layers:?}: {got}, expected {expected}");
    }
}

/// Data that stays on the host gives the same bits, in chunks of a few batches, with a tail, and where a batch is all there is.
#[test]
fn streamed_data_gives_the_same_bits() {
    on_device!(&[], &[("KILN_SIM_SEED", "5")]);
    let data = repeated(4);
    for (form, batch) in [
        (Form::Pixels, BATCH),
        (Form::Floats, BATCH_WITH_TAIL),
        (Form::PixelsToOneHot, 100),
        (Form::FloatsToValues, 100),
    ] {
        let run = |placement| {
            // Six chunks and more an epoch.
            let options = GraphOptions { placement, chunk_rows: Some(210), ..GraphOptions::default() };
            let job = data.job(form, &LAYERS);
            let test = job.train.first(40);
            let mut trainer = Trainer::graph(job, &options).unwrap();
            let rows: Vec<u32> = (0..4 * SAMPLES as u32).map(|at| at * 13 % (4 * SAMPLES as u32)).collect();
            let first = trainer.epoch(&rows, batch).unwrap();
            let gradients = trainer.gradients(&rows[5..45]).unwrap();
            let second = trainer.epoch(&rows[..500], batch).unwrap();
            (first, gradients, second, trainer.evaluate(&test).unwrap(), trainer.model().unwrap())
        };
        assert_eq!(run(Placement::Resident), run(Placement::Streamed), "{form:?} {batch}");
    }
}

#[test]
fn data_that_does_not_fit_is_streamed_or_refused() {
    on_device!(&[("KILN_SIM_MEMORY", "100k")]);
    let data = repeated(12);
    let on = |placement| {
        Trainer::graph(
            data.job(Form::Pixels, &LAYERS),
            &GraphOptions { placement, ..GraphOptions::default() },
        )
    };
    let described = on(Placement::Auto).unwrap().describe();
    assert!(described.ends_with("data streamed from the host"), "{described}");
    let error = on(Placement::Resident).err().expect("it does not fit").to_string();
    assert!(error.contains("the data set: 104748 bytes asked for"), "{error}");
}

/// Epochs of other lengths, other batches, gradients and evaluations in between: captures made before must not be used for
/// buffers that have moved, and nothing of one may leak into another.
#[test]
fn batches_may_change_from_epoch_to_epoch() {
    on_device!();
    let data = Data::new();
    let run = |submission: Submission| {
        let mut trainer = Trainer::graph(data.job(Form::Pixels, &LAYERS), &with(submission)).unwrap();
        let test = data.job(Form::Floats, &LAYERS).train;
        let mut losses = Vec::new();
        for (rows, batch) in [(40, 5), (SAMPLES, 17), (33, 33), (1, 1), (SAMPLES, 5), (40, 5)] {
            losses.push(trainer.epoch(&order(rows)[..rows], batch).unwrap().loss);
            losses.push(trainer.gradients(&order(1)[..rows.min(50)]).unwrap().loss);
            losses.push(trainer.evaluate(&test.first(rows)).unwrap().loss);
        }
        (losses, trainer.model().unwrap())
    };
    assert_eq!(run(Submission::Captured), run(Submission::Direct));
}

/// More rows than an evaluation takes at once, of both forms.
#[test]
fn evaluations_in_several_parts() {
    on_device!();
    let data = Data::new();
    let Inputs::Pixels(pixels) = data.job(Form::Pixels, &LAYERS).train.inputs() else {
        unreachable!("pixels were asked for")
    };
    let (pixels, labels) = (pixels.repeat(15), data.labels.repeat(15));
    let many = Samples::pixels(&pixels, WIDTH, Targets::Labels(&labels)).unwrap();
    let mut trainer = Trainer::graph(data.job(Form::Pixels, &LAYERS), &GraphOptions::default()).unwrap();
    let one = trainer.evaluate(&data.job(Form::Pixels, &LAYERS).train).unwrap();
    let all = trainer.evaluate(&many).unwrap();
    // Kept on the device from epoch to epoch: the same, and so are others meanwhile.
    let train = data.job(Form::Pixels, &LAYERS).train;
    let mut epochs = trainer.epochs(0, 7, order).evaluating(&many).unwrap();
    assert_eq!(epochs.evaluate(&many).unwrap(), all);
    assert_eq!(epochs.evaluate(&train).unwrap(), one);
    assert_eq!(epochs.evaluate(&many).unwrap(), all);
    drop(epochs);
    assert_eq!(trainer.evaluate(&many).unwrap(), all);
    assert!((one.loss - all.loss).abs() <= 1e-6, "{one:?} {all:?}");
    assert_eq!(one.accuracy, all.accuracy);
}

/// The real job: a third of an epoch of MNIST in batches of 64, a tail of 32 among them, and its test set. (On the simulator a whole one
/// takes minutes.)
#[test]
fn a_third_of_an_epoch_of_mnist_is_the_hosts() {
    on_device!();
    let mnist = kiln_tests::mnist();
    fn samples(split: &Split) -> Samples<'_> {
        Samples::pixels(&split.images.pixels, split.width(), Targets::Labels(&split.labels)).unwrap()
    }
    let (train, test) = (samples(&mnist.train), samples(&mnist.test));
    let job = || Job {
        model: Mlp::new(&[784, 128, 10], 0).unwrap(),
        loss: Loss::CrossEntropy,
        optimizer: Sgd { lr: 0.01, momentum: 0.9, ..Sgd::default() }.into(),
        schedule: Schedule::default(),
        train,
    };
    let order = &Shuffle::new(train.len(), 0).epoch(0)[..312 * 64 + 32];
    let run =
        |mut trainer: Trainer<'_>| (trainer.epoch(order, 64).unwrap(), trainer.evaluate(&test).unwrap());
    let (epoch, evaluation) = run(Trainer::graph(job(), &GraphOptions::default()).unwrap());
    let (host_epoch, host_evaluation) = run(Trainer::host(job(), 2).unwrap());
    println!("graph {epoch:?} {evaluation:?}, host {host_epoch:?} {host_evaluation:?}");
    assert_eq!((epoch.steps, host_epoch.steps), (313, 313));
    assert!((epoch.loss - host_epoch.loss).abs() <= 1e-4);
    assert!((evaluation.loss - host_evaluation.loss).abs() <= 1e-4);
    // A sample whose two largest outputs are within rounding of each other may fall either way.
    let gap = (evaluation.accuracy.unwrap() - host_evaluation.accuracy.unwrap()).abs();
    assert!(gap <= 2e-4, "two samples of ten thousand");
}

/// The named precisions train too, a little differently, and not worse than a hundredth.
#[test]
fn other_precisions_train() {
    on_device!();
    let data = Data::new();
    let outcome = |precision| {
        on_graph(&data, Form::Pixels, BATCH, GraphOptions { precision, ..GraphOptions::default() })
    };
    let (full, _, exact) = outcome(Precision::F32);
    for precision in [Precision::Tf32, Precision::Bf16] {
        let (epochs, _, model) = outcome(precision);
        assert_ne!(model, exact, "{precision} rounds its operands");
        assert!((epochs[1].loss - full[1].loss).abs() <= 0.01, "{precision}: {epochs:?}, {full:?}");
    }
}

/// Parts of a batch add up to it, but for rounding; whole batches and smaller ones are as they were, bit for bit.
#[test]
fn batches_in_parts_give_the_same_results() {
    on_device!(&[("KILN_SIM_SEED", "7")]);
    let data = Data::new();
    for (form, adam) in [(Form::Pixels, false), (Form::FloatsToValues, false), (Form::PixelsToOneHot, true)] {
        let run = |options: GraphOptions| {
            let mut job = data.job(form, &LAYERS);
            if adam {
                job.optimizer = AdamW::default().into();
            }
            let test = job.train.first(SAMPLES - 3);
            let mut trainer = Trainer::graph(job, &options).unwrap();
            let gradients = trainer.gradients(&order(0)[..50]).unwrap();
            (gradients, train(trainer, 40, &test))
        };
        let parts = |rows: usize| GraphOptions { micro_batch: Some(rows), ..GraphOptions::default() };
        let (gradients, (epochs, evaluation, model)) = run(GraphOptions::default());
        assert_eq!(run(parts(50)), (gradients.clone(), (epochs.clone(), evaluation, model.clone())));
        for rows in [7, 13] {
            let captured = run(parts(rows));
            let options = match rows {
                7 => GraphOptions { submission: Submission::Direct, ..parts(rows) },
                _ => GraphOptions { placement: Placement::Streamed, chunk_rows: Some(80), ..parts(rows) },
            };
            assert_eq!(run(options), captured, "{form:?}, parts of {rows}, {options:?}");
            let (of_parts, (epochs_of_parts, evaluation_of_parts, _)) = captured;
            let close = |got: f64, expected: f64| {
                assert!(
                    (got - expected).abs() <= 1e-6,
                    "{form:?}, parts of {rows}: {got}, expected {expected}"
                );
            };
            close(of_parts.loss, gradients.loss);
            for (got, expected) in of_parts.tensors.iter().zip(&gradients.tensors) {
                got.data.iter().zip(&expected.data).for_each(|(&g, &e)| close(g.into(), e.into()));
            }
            for (got, expected) in epochs_of_parts.iter().zip(&epochs) {
                close(got.loss, expected.loss);
                assert_eq!(got.steps, expected.steps);
            }
            close(evaluation_of_parts.loss, evaluation.loss);
        }
    }
}

/// One layer has more weights than [`on_copies`] lets models have whose products read their operands as they are.
const WIDE: [usize; 4] = [WIDTH, 131, 67, CLASSES];

fn on_copies(precision: Precision, submission: Submission, placement: Placement) -> GraphOptions {
    const MOST: usize = 1 << 13;
    let choices =
        Choices { copied_weights_max: MOST, copied_f32_weights_max: Some(MOST), ..Choices::default() };
    GraphOptions { precision, submission, placement, choices, ..GraphOptions::default() }
}

/// Copies give the same bits however steps are submitted, wherever the data is, and where training goes on from a state.
#[test]
fn copies_of_wide_layers_give_the_same_bits() {
    on_device!(&[("KILN_SIM_ARCH", "sm_80"), ("KILN_SIM_SEED", "3")]);
    let data = Data::new();
    for (form, adam, precision) in
        [(Form::Pixels, false, Precision::F32), (Form::FloatsToValues, true, Precision::Bf16)]
    {
        let mut job = data.job(form, &WIDE);
        if adam {
            job.optimizer = AdamW::default().into();
        }
        let test = job.train.first(SAMPLES - 3);
        let trainer = |seed, submission, placement| {
            let job = Job { model: Mlp::new(&WIDE, seed).unwrap(), ..job.clone() };
            Trainer::graph(job, &on_copies(precision, submission, placement)).unwrap()
        };
        let run = |submission, placement| train(trainer(3, submission, placement), 100, &test);
        let captured = run(Submission::Captured, Placement::Resident);
        for (submission, placement) in
            [(Submission::Direct, Placement::Resident), (Submission::Captured, Placement::Streamed)]
        {
            let other = run(submission, placement);
            assert!(captured == other, "{form:?} {submission:?} {placement:?}");
        }
        let [mut first, mut second] =
            [3, 4].map(|seed| trainer(seed, Submission::Captured, Placement::Resident));
        first.epoch(&order(0), 100).unwrap();
        second.epoch(&order(5), 100).unwrap();
        second.restore(&first.state().unwrap()).unwrap();
        let epoch = second.epoch(&order(1), 100).unwrap();
        let resumed = (epoch, second.evaluate(&test).unwrap(), second.model().unwrap());
        assert!(resumed == (captured.0[1], captured.1, captured.2), "{form:?}");
    }
}

/// Losses are the host's but for the rounding of operands to 8 or 11 bits, or without any in f32. (What the copies themselves change is far less, and has a
/// test of its own in the engine.)
#[test]
fn copies_of_wide_layers_follow_the_host() {
    on_device!();
    let data = Data::new();
    for (form, precision, most) in [
        (Form::Pixels, Precision::Tf32, 0.002),
        (Form::FloatsToValues, Precision::Bf16, 0.01),
        (Form::Pixels, Precision::F32, 1e-5),
    ] {
        for (optimizer, name) in [
            (data.job(form, &WIDE).optimizer, "SGD"),
            (Sgd { lr: 0.05, ..Sgd::default() }.into(), "SGD without momentum"),
            (AdamW::default().into(), "AdamW"),
        ] {
            let run = |on: &dyn Fn(Job<'_>) -> Outcome| {
                let mut job = data.job(form, &WIDE);
                job.optimizer = optimizer;
                on(job)
            };
            let (wide, evaluation, _) = run(&|job| {
                let test = job.train.first(SAMPLES - 3);
                let options = on_copies(precision, Submission::Captured, Placement::Resident);
                train(Trainer::graph(job, &options).unwrap(), 100, &test)
            });
            let (host, host_evaluation, _) = run(&|job| {
                let test = job.train.first(SAMPLES - 3);
                train(Trainer::host(job, 2).unwrap(), 100, &test)
            });
            let what = format!("{form:?} {name} {precision}");
            println!("{what}: {wide:?} {evaluation:?}, host {host:?} {host_evaluation:?}");
            for (got, expected) in wide.iter().zip(&host) {
                assert!((got.loss - expected.loss).abs() <= most * expected.loss, "{what}");
            }
            assert!((evaluation.loss - host_evaluation.loss).abs() <= most * host_evaluation.loss, "{what}");
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_is_an_error_that_names_its_step() {
    on_device!();
    let data = Data::new();
    let mut job = data.job(Form::FloatsToValues, &LAYERS);
    job.optimizer = Sgd { lr: 1e30, ..Sgd::default() }.into();
    let error = Trainer::graph(job, &GraphOptions::default()).unwrap().epoch(&order(0), BATCH).unwrap_err();
    assert!(matches!(error, kiln_engine::Error::Diverged { step: 1..=3, .. }), "{error}");
}
