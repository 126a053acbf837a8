//! The request path from socket to socket, with peers that speak raw bytes: what counts is what arrives there.

mod connections;
mod forwarding;
mod smuggling;
mod tcp;
mod tunnels;
