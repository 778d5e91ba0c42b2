//! Where work is split over threads. The split is fixed by the shapes, so results do not depend on the threads.

use rayon::prelude::*;

use crate::Error;

/// Multiply-adds under which a hand-over to another thread (some 5 µs) costs more than it saves.
const PARALLEL_FROM: usize = 1 << 20;

/// The threads of an engine: the caller's alone, or a pool.
pub(crate) struct Threads {
    pool: Option<rayon::ThreadPool>,
}

impl Threads {
    pub(crate) fn new(threads: usize) -> Result<Self, Error> {
        if threads <= 1 {
            return Ok(Self { pool: None });
        }
        let name = |i| format!("kiln-host-{i}");
        let built = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
        let pool = Some(built.map_err(|e| Error::Threads { threads, reason: e.to_string() })?);
        Ok(Self { pool })
    }

    pub(crate) fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `work` on one of the threads: from there, handing a piece to a neighbour is cheap.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            None => work(),
            Some(pool) => pool.install(work),
        }
    }
}

/// Whether so many multiply-adds are worth more than one thread.
fn worth_it(multiply_adds: usize) -> bool {
    multiply_adds >= PARALLEL_FROM && rayon::current_thread_index().is_some()
}

/// Runs `work` for every item; on several threads where the cost of all, in multiply-adds, is worth it.
pub(crate) fn each<T: Send>(items: &mut [T], multiply_adds: usize, work: impl Fn(&mut T) + Send + Sync) {
    if worth_it(multiply_adds) {
        items.par_iter_mut().for_each(work);
    } else {
        items.iter_mut().for_each(work);
    }
}

/// Runs `work(i, chunk)` for every chunk of `len` values, the last may be shorter; otherwise as [`each`].
pub(crate) fn each_chunk(
    values: &mut [f32],
    len: usize,
    multiply_adds: usize,
    work: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    if worth_it(multiply_adds) {
        values.par_chunks_mut(len).enumerate().for_each(|(i, chunk)| work(i, chunk));
    } else {
        values.chunks_mut(len).enumerate().for_each(|(i, chunk)| work(i, chunk));
    }
}
