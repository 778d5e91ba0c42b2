//! The simulator must never take the place of a real driver by accident.

use std::path::Path;

use crate::child::{Program, library};
use crate::program::device;

fn has_a_libcuda(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("libcuda.so"))
}

#[test]
fn nothing_that_cargo_builds_is_called_libcuda() {
    let deps = library();
    assert!(deps.exists(), "{}", deps.display());
    let deps = deps.parent().unwrap();
    let target = deps.parent().unwrap().parent().unwrap();
    // Both profiles, and their folders of dependencies: cargo puts these into the library path of what it runs.
    for profile in ["debug", "release"].map(|profile| target.join(profile)) {
        for folder in [profile.join("deps"), profile].iter().filter(|folder| folder.exists()) {
            assert!(!has_a_libcuda(folder), "{}", folder.display());
        }
    }
    assert!(!has_a_libcuda(deps));
}

#[test]
fn the_device_says_what_it_is() {
    let program = Program::new(|| {
        let (context, _) = device();
        assert_eq!(context.name().unwrap(), "Kiln simulator (sm_90)");
    });
    program.run_clean(&[]);
}
