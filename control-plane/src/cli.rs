//! Arguments of the control plane.
