//! Configuration: Envoy's protos converted into our validated types.
//!
//! "Parse, don't validate": a value of a type in this module is right. A proto that is not becomes a list of
//! [`Rejected`], each with the path of the field and the reason; what we do not support is rejected by name and
//! never ignored.
//!
//! Reading order: [`problem`] (how rejections are collected), [`bootstrap`], [`listener`], [`http_connection_manager`] with [`http1`],
//! [`route`] with [`matcher`] and [`hash_policy`], [`cluster`] with [`load_balancer`], [`endpoint`] with [`address`], [`tls`],
//! [`secret`];
//! [`config_source`] with [`resource_file`]; [`extension`] and [`runtime`]; [`access_log`], [`tracing`] and the [`grpc_service`] that they are sent to; [`grpc_stats`];
//! [`typed_struct`], before any of them.
//!
//! Names stay names here. They become ids when a snapshot is built.

#[allow(deprecated)] // Deprecated fields are taken apart as well: control planes still send them.
mod convert;

pub mod access_log;
pub mod address;
pub mod bind_config;
pub mod bootstrap;
pub mod client_address;
pub mod cluster;
pub mod compressor;
pub mod config_source;
pub mod decompressor;
pub mod endpoint;
pub mod ext_authz;
pub mod extension;
pub mod grpc_service;
pub mod grpc_stats;
pub mod hash_policy;
pub mod header;
pub mod health_check;
pub mod http1;
pub mod http_connection_manager;
pub mod http_filters;
pub mod internal_redirect;
pub mod jwt_authn;
pub mod limiter;
pub mod listener;
pub mod listener_filter;
pub mod load_balancer;
pub mod local_reply;
pub mod matcher;
pub mod metadata;
pub mod mirror;
pub mod network_filter;
pub mod on_demand;
pub mod problem;
pub mod proxy_protocol;
pub mod rate_limit;
pub mod rbac;
pub mod resource_file;
pub mod route;
pub mod runtime;
pub mod secret;
pub mod socket_option;
pub mod stats;
pub mod subset;
pub mod tcp_proxy;
pub mod tls;
pub mod token_bucket;
pub mod tracing;
pub mod typed_struct;
pub mod uri_template;

pub use problem::{Problems, Rejected};
