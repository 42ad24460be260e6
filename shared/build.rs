//! Tells cargo that the migrations are part of this crate: they are embedded by a macro, which cargo cannot see.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
