//! Benches: each states its question and its rival. What they share is here.

pub mod allocations;
pub mod recorded;
pub mod rival;

/// Whether this only is to show that it runs at all, as with
/// `cargo bench -- --test` and `cargo test --benches`.
#[must_use]
pub fn once() -> bool {
    let given = |flag| std::env::args().any(|arg| arg == flag);
    !given("--bench") || given("--test")
}
