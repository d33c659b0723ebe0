//! Tells the test where `failover` is, which sets the nodes up that the examples run on.

fn main() {
    // OUT_DIR is <target>/<profile>/build/<package>/out.
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    if let Some(profile) = std::path::Path::new(&out).ancestors().nth(3) {
        let failover = profile.join("failover");
        println!("cargo::rustc-env=FAILOVER_PROGRAM={}", failover.display());
    }
    println!("cargo::rerun-if-changed=build.rs");
}
