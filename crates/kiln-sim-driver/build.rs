//! Links the library so that it stays loaded: its handler for the end of the process must still be there by then.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
