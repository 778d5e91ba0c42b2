//! Blocks of a cluster.

use kiln_sim::device::LaunchConfig;

use crate::compare::{bits, exactly};
use crate::gpu::{Gpu, Random, linear};

pub(crate) fn cluster_exchange(gpu: &mut Gpu) {
    const WIDTH: usize = 128;
    let mut random = Random(10);
    for (clusters, rounds) in [(2, 5u32), (1, 1), (3, 2), (1, 0)] {
        let blocks = 4 * clusters;
        let x = random.floats(blocks * WIDTH, -1.0, 1.0);
        let (input, out) = (gpu.put(&x), gpu.space::<f32>(blocks * WIDTH));
        gpu.launch("ring", &linear(blocks, WIDTH), &[&input, &out, &rounds]);
        let mut v = x;
        for _ in 0..rounds {
            let before = v.clone();
            for (e, value) in v.iter_mut().enumerate() {
                let (block, t) = (e / WIDTH, e % WIDTH);
                let previous = block / 4 * 4 + (block + 3) % 4;
                // Halving is exact, so it does not matter whether the sum is fused.
                *value = 0.5 * before[e] + before[previous * WIDTH + t];
            }
        }
        bits("ring", &gpu.get(out), &v);
    }
}

pub(crate) fn dsmem_reduce(gpu: &mut Gpu) {
    let mut random = Random(11);
    for (n, cluster, blocks, threads) in [(1009, 4, 8, 64), (333, 2, 6, 37), (77, 8, 8, 32), (5, 1, 3, 32)] {
        let x = random.ints(n, -100_000, 100_000);
        let input = gpu.put(&x);
        let expected = |size: usize, blocks: usize| -> Vec<i32> {
            let cluster_of = |i: usize| i % (blocks * threads) / threads / size;
            (0..blocks / size).map(|c| (0..n).filter(|i| cluster_of(*i) == c).map(|i| x[i]).sum()).collect()
        };
        let out = gpu.space::<i32>(2);
        gpu.launch("pull", &linear(8, threads), &[&input, &out, &(n as u32)]);
        exactly("pull", &gpu.get(out), &expected(4, 8));

        let out = gpu.space::<i32>(blocks / cluster);
        let config = LaunchConfig { cluster: Some([cluster as u32, 1, 1]), ..linear(blocks, threads) };
        gpu.launch("push", &config, &[&input, &out, &(n as u32)]);
        exactly("push", &gpu.get(out), &expected(cluster, blocks));
    }
}

pub(crate) fn launch_shape(gpu: &mut Gpu) {
    for (grid, block, cluster) in [
        ([6, 2, 4], [5, 3, 2], Some([3, 1, 2])),
        ([2, 3, 1], [67, 1, 1], None),
        ([4, 2, 2], [1, 1, 33], Some([2, 2, 2])),
    ] {
        let (blocks, threads) = (count(grid), count(block));
        let (out, sizes) = (gpu.space::<u32>(3 * blocks * threads), gpu.space::<u32>(12 * blocks));
        let config = LaunchConfig { grid, block, cluster, dynamic_shared: 52, cooperative: false };
        gpu.launch("shape", &config, &[&out, &sizes]);
        let cluster = cluster.unwrap_or([1; 3]);
        let mut expected = Vec::new();
        let mut expected_sizes = Vec::new();
        for b in 0..blocks as u32 {
            let id = [b % grid[0], b / grid[0] % grid[1], b / (grid[0] * grid[1])];
            let inside: [u32; 3] = std::array::from_fn(|d| id[d] % cluster[d]);
            let rank = (inside[2] * cluster[1] + inside[1]) * cluster[0] + inside[0];
            for t in 0..threads as u32 {
                expected.extend([b * threads as u32 + t, t % 32, rank]);
            }
            expected_sizes.extend([count(cluster) as u32, 52]);
            expected_sizes.extend((0..3).map(|d| id[d] / cluster[d]));
            expected_sizes.extend(inside);
            expected_sizes.extend((0..3).map(|d| grid[d] / cluster[d]));
            expected_sizes.push(2 * b);
        }
        exactly("shape", &gpu.get(out), &expected);
        exactly("sizes", &gpu.get(sizes), &expected_sizes);
    }
}

fn count(dims: [u32; 3]) -> usize {
    dims.iter().product::<u32>() as usize
}
