//! The harness of the end-to-end tests: it starts real processes on loopback addresses and looks at them from outside.
//!
//! # Layout
//!
//! In the order a test needs them:
//!
//! - [`peers`] installs what we did not write (Envoy, grpcio) under `target/peers`;
//! - [`address`] hands out loopback addresses that nobody else uses;
//! - [`pki`] makes certificate authorities and leaves for a test;
//! - [`process`] is a child process: its output is kept, it is killed by its id when dropped;
//! - [`bootstrap`] fills addresses and files into the text of an Envoy bootstrap;
//! - [`proxy`] runs Envoy or our sidecar from such a text, and reads its admin interface;
//! - [`control_plane`] runs our control plane and speaks its REST interface;
//! - [`upstream`] is an HTTP server that records what reached it and answers as a test scripts it;
//! - [`otlp`] reads what such a server got as a collector of traces;
//! - [`als`] keeps access logs that are sent to it over gRPC;
//! - [`lrs`] asks for load reports and keeps them;
//! - [`rls`] is a service of rate limits, which decides by what it is told;
//! - [`tcp`] is the same for bare TCP;
//! - [`udp`] keeps datagrams;
//! - [`ads`] is an independent xDS server, a Python program that a test fills and listens to;
//! - [`scene`] is a proxy with that server, and the resources that its tests begin with;
//! - [`foreign`] is a proxy under the control plane of another product, which that server plays;
//! - [`namespace`] runs a test where the kernel redirects connections;
//! - [`client`] sends one request and reports everything that came back;
//! - [`coding`] makes bodies readable that were compressed;
//! - [`corpus`] asks Envoy and us whether a configuration is valid, and spoils the valid ones;
//! - [`differential`] gives the same requests to Envoy and to us and compares.
//!
//! `tests/` holds one feature a file, `benches/` what is measured beside Envoy, `fixtures/` the Python programs.

pub mod address;
pub mod ads;
pub mod als;
pub mod bootstrap;
pub mod client;
pub mod coding;
pub mod control_plane;
pub mod corpus;
pub mod differential;
pub mod foreign;
pub mod lrs;
pub mod namespace;
pub mod otlp;
pub mod peers;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod rls;
pub mod scene;
pub mod tcp;
pub mod tokens;
pub mod udp;
pub mod upstream;
