//! Live sidecars: leases, epochs, drains, and what they observe of the endpoints they balance over.
