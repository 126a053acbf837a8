//! Golden shapes.
