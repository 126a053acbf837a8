//! The sidecar as a binary of its own.
fn main() {}
