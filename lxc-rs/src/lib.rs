//! liblxc, safe and typed.
