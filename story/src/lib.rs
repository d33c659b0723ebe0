//! The demo: plays the whole story on real nodes and judges it.
