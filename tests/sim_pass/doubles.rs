//! Float64 arithmetic: the rows of the kernel `doubles`.

use crate::compare::{compare, exactly, report, ulp64};
use crate::gpu::{Gpu, Random};
use crate::rows::rows;

pub(crate) fn doubles(gpu: &mut Gpu) {
    let mut random = Random(60);
    let mut value = |low: f32, high: f32| {
        f64::from(random.float(low, high)) * (1.0 + random.bits() as f64 * 2f64.powi(-70))
    };
    let n = 97;
    let a: Vec<f64> =
        (0..n).map(|i| if i % 5 == 0 { value(-400.0, 400.0) } else { value(-3.0, 3.0) }).collect();
    let b: Vec<f64> = (0..n).map(|_| value(-4.0, 4.0)).collect();
    let (da, db) = (gpu.put(&a), gpu.put(&b));
    let got = rows::<f64>(gpu, "doubles", &[&da, &db], 16, n);
    for (k, got) in got.iter().enumerate() {
        let expected: Vec<f64> = a.iter().zip(&b).map(|(x, y)| row(k, *x, *y)).collect();
        let what = format!("doubles, row {k}");
        match k {
            0..8 => {
                let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<u64>>();
                exactly(&what, &bits(got), &bits(&expected));
            }
            // CUDA's own bound is 2 units or less for each; one more for the reference.
            _ => {
                let bounds: Vec<f64> = expected.iter().map(|v| 3.0 * ulp64(*v)).collect();
                report(&what, compare(got, &expected, &bounds));
            }
        }
    }
}

fn row(k: usize, x: f64, y: f64) -> f64 {
    let positive = x.abs();
    match k {
        0 => x + y,
        1 => sum_towards_zero(x, y),
        2 => product_up(x, y),
        3 => x.mul_add(y, -x),
        4 => x / y,
        5 => positive.sqrt(),
        6 => x.floor(),
        7 => f64::from(x as f32),
        8 => x.exp(),
        9 => positive.ln(),
        10 => x.sin(),
        11 => x.cos(),
        12 => positive.powf(y),
        13 => x.tanh(),
        14 => x.atan(),
        _ => x.cbrt(),
    }
}

/// The rounded sum and what rounding took away, exactly (Knuth's two-sum), tell which neighbour it is.
fn sum_towards_zero(x: f64, y: f64) -> f64 {
    let sum = x + y;
    let from_y = sum - x;
    let rest = (x - (sum - from_y)) + (y - from_y);
    if rest != 0.0 && (rest < 0.0) == (sum > 0.0) { towards_zero(sum) } else { sum }
}

fn towards_zero(value: f64) -> f64 {
    f64::from_bits(value.to_bits() - 1)
}

fn product_up(x: f64, y: f64) -> f64 {
    let product = x * y;
    if x.mul_add(y, -product) > 0.0 { product.next_up() } else { product }
}
