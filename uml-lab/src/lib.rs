//! Real nodes on one machine: boots user-mode kernels, wires them, breaks them.
