//! Steps of several kinds in one epoch, and the kernels of an epoch.

use kiln_tests::on_device;

use super::*;

const ROWS: usize = 150;
const WIDTH: usize = 29;
const CLASSES: usize = 7;

fn data() -> (Vec<u8>, Vec<u8>) {
    let pixels = (0..ROWS * WIDTH).map(|at| (at * at * 31 % 251) as u8).collect();
    (pixels, (0..ROWS).map(|row| (row * 5 % CLASSES) as u8).collect())
}

/// Batches of 40 have too many products for a head, and the tail of 30, or parts of 20, has not: whatever is computed how, the losses
/// are those of an epoch of heads alone, and captured steps give the bits of others.
#[test]
fn batches_with_a_head_and_without_one_stand_side_by_side() {
    on_device!();
    let (pixels, labels) = data();
    let order: Vec<u32> = (0..ROWS as u32).map(|at| at * 7 % ROWS as u32).collect();
    let run = |products: u64, submission: Submission, micro_batch: Option<usize>| {
        let job = Job {
            model: Mlp::new(&[WIDTH, 33, 21, CLASSES], 3).unwrap(),
            loss: Loss::CrossEntropy,
            optimizer: crate::Sgd { lr: 0.05, momentum: 0.9, ..crate::Sgd::default() }.into(),
            schedule: Schedule::default(),
            train: Samples::pixels(&pixels, WIDTH, Targets::Labels(&labels)).unwrap(),
        };
        let choices = Choices { head_products_max: products, ..Choices::default() };
        let options = GraphOptions { submission, micro_batch, choices, ..GraphOptions::default() };
        let mut graph = Graph::new(job, options).unwrap();
        let batch = |rows: usize| graph.has_head(Batch::alone(rows, rows, 0));
        let heads = [40, 30, 20].map(batch);
        let losses: Vec<f64> = (0..3).map(|_| graph.epoch(&order, 40, &mut |_| ()).unwrap().loss).collect();
        (heads, losses, graph.model().unwrap())
    };
    let (heads, expected, _) = run(u64::MAX, Submission::Captured, None);
    assert_eq!(heads, [true; 3]);
    // 21 inputs and 16 classes, as many as are summed at once, of 30 rows.
    let limit = 30 * 21 * 16;
    for micro_batch in [None, Some(20)] {
        let captured = run(limit, Submission::Captured, micro_batch);
        assert_eq!(captured.0, [false, true, true]);
        for (got, expected) in captured.1.iter().zip(&expected) {
            assert!((got - expected).abs() <= 1e-5, "{micro_batch:?}: {got}, expected {expected}");
        }
        assert_eq!(run(limit, Submission::Direct, micro_batch), captured, "{micro_batch:?}");
    }
    assert_eq!(run(limit - 1, Submission::Captured, None).0, [false, false, true]);
    assert_eq!(run(0, Submission::Captured, None).0, [false; 3]);
}

/// What an epoch launches is loaded before its clock starts, and nothing else; what an evaluation launches, when its samples are announced.
#[test]
fn kernels_are_loaded_before_the_clock_starts() {
    on_device!();
    let (pixels, labels) = data();
    let order: Vec<u32> = (0..ROWS as u32).collect();
    let momentum: Optimizer = crate::Sgd { lr: 0.05, momentum: 0.9, ..crate::Sgd::default() }.into();
    let small_tail = GraphOptions { micro_batch: Some(20), ..GraphOptions::default() };
    let copies = Choices { copied_f32_weights_max: Some(0), ..Choices::default() };
    let cases = [
        (momentum, Loss::CrossEntropy, GraphOptions::default()),
        (
            momentum,
            Loss::MeanSquaredError,
            GraphOptions { submission: Submission::Direct, ..GraphOptions::default() },
        ),
        (momentum, Loss::CrossEntropy, small_tail),
        (crate::AdamW::default().into(), Loss::CrossEntropy, GraphOptions::default()),
        (momentum, Loss::CrossEntropy, GraphOptions { choices: copies, ..GraphOptions::default() }),
        (momentum, Loss::MeanSquaredError, GraphOptions { placement: Placement::Streamed, ..small_tail }),
    ];
    for (optimizer, loss, options) in cases {
        let train = Samples::pixels(&pixels, WIDTH, Targets::Labels(&labels)).unwrap();
        let model = Mlp::new(&[WIDTH, 33, 21, CLASSES], 3).unwrap();
        let job = Job { model, loss, optimizer, schedule: Schedule::default(), train };
        let mut graph = Graph::new(job, options).unwrap();
        graph.prepare(ROWS, 40).unwrap();
        let prepared = graph.gpu.kernels.names_loaded();
        graph.epoch(&order, 40, &mut |_| ()).unwrap();
        assert_eq!(graph.gpu.kernels.names_loaded(), prepared, "{options:?}");
        assert!(prepared.len() <= 16, "{prepared:?}");

        graph.keep(Some(&train)).unwrap();
        let announced = graph.gpu.kernels.names_loaded();
        graph.evaluate(&train).unwrap();
        assert_eq!(graph.gpu.kernels.names_loaded(), announced, "{options:?}");
    }
}
