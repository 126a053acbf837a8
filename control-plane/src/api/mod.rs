//! The REST interface: documents in, problems or revisions out, and the truth about the mesh.
//!
//! Reading order: [`view`], what the live side of the control plane must be able to answer.

pub mod view;
