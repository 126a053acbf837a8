//! What is bound, opened and started, in which order, and how it ends.
