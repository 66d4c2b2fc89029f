//! Builds anew when the web app was built anew: it is carried inside the program.

use std::path::Path;

fn main() {
    let built = "../../apps/web/dist";
    // While there is none, whatever comes there is new.
    let watched = if Path::new(built).exists() { built } else { "../../apps/web" };
    println!("cargo::rerun-if-changed={watched}");
}
