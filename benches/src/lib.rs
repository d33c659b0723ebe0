//! Benches: each states its question and its rival.
