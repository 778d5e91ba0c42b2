//! The exported calls, by subject. Those that the simulator does not have are one list, in `unsupported`.

mod context;
mod copy;
mod device;
mod event;
mod fill;
mod graph;
mod launch;
mod memory;
mod module;
mod node;
mod occupancy;
mod pool;
mod stream;
mod system;
mod unsupported;

/// Every exported call, by name.
fn calls() -> Vec<(&'static str, *const ())> {
    let tables = [
        context::table(),
        copy::table(),
        device::table(),
        event::table(),
        fill::table(),
        graph::table(),
        launch::table(),
        memory::table(),
        module::table(),
        node::table(),
        occupancy::table(),
        pool::table(),
        stream::table(),
        system::table(),
        unsupported::table(),
    ];
    tables.concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn no_call_is_listed_twice_and_none_is_missing() {
        let calls = super::calls();
        let names: BTreeSet<&str> = calls.iter().map(|call| call.0).collect();
        assert_eq!(names.len(), calls.len());
        // What cudarc binds for CUDA 12.8, see scripts/cudarc-under-sim, which compares name by name.
        assert_eq!(names.len(), 443);
    }
}
