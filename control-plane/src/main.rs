//! The control plane as a binary of its own.
fn main() {}
