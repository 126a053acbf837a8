//! A configuration and the live instances, to the xDS resources one workload needs. Pure functions.
