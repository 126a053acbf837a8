//! Sidecars for services that know nothing of them: a compose file in, the same file with a mesh in it out.
//!
//! # The shape of an injected compose file
//! Of a service `api` become three, all on one network stack:
//! - **`api-net`, the network owner** (`outrigger pause`): does nothing but to exist. It has everything about networks that
//!   `api` had: networks and aliases, published ports, DNS settings, extra hosts, host name. The engine forbids these keys
//!   beside `network_mode: service:...`, and whoever owns the network must outlive a restart of the other two.
//! - **`api-mesh`, the sidecar**: takes what comes from other members at port 15006, with mTLS, and hands it to the
//!   application on loopback. Its identity and last good configuration are in a volume, so that it starts while there is no
//!   control plane.
//! - **`api`, the application**, under its own name, so that `docker-compose logs api` and `restart api` work on. It starts
//!   when its sidecar is ready and stops before it.
//!
//! Once for the whole file there is **`outrigger-control`**, the control plane. It makes the Service objects that follow from
//! the file at its first start, and leaves a join token for each service in a volume in memory that the service's sidecars
//! alone mount. Its API listens on its own loopback: `docker-compose exec outrigger-control /outrigger status`.
//!
//! **How calls get into the mesh.** No container has a capability. In the network of a caller, the name of each service of
//! the mesh leads to an address of its own on loopback (`127.0.1.1`, `127.0.1.2`, ...; `extra_hosts` of the network owner),
//! where the sidecar listens at the service's ports. So an application goes on calling `http://api:9000`. The price: no
//! application of a caller may listen at `0.0.0.0` with a port of a service that it calls; that is found and refused here.
//! What is not in the mesh (a database of a stranger, a host of the Internet) is called as before.
//!
//! **Wrapper mode** (label `outrigger.mode: wrapper`) makes no containers but one: `outrigger run -- COMMAND` runs the sidecar
//! and the application in it. `--scale` works then, and jobs end (their exit code is passed on). The binary comes in by a
//! volume, so the image may be any. Such a sidecar keeps nothing: a place that only it can write to would have to be its
//! user's, who is not known here. So it joins anew at each start, for which the control plane must be there.
//!
//! **What a restart does.** Application and sidecar may be restarted alone, at any time. A restart of the network owner makes
//! a new network, in which the other two are not: restart them after it. (Wrapped services have no such trouble.)
//!
//! **One network.** A sidecar has one address for all of its callers. If all injected services share a network of the file,
//! that one is the mesh's; if not, a network `outrigger` is added to all of them.
//!
//! Everything that is decided follows from the file and from its labels `outrigger.*` alone: the output is the same each time.
//!
//! Reading order: [`compose`]; [`envelope`], how the way back is kept; [`yaml`], values and how they are written.

pub mod compose;
mod envelope;
mod yaml;

pub use self::envelope::{Opened, RestoreError};

/// The file as it was before it was injected.
///
/// # Errors
/// If it was not, or if what it holds of the original was changed.
pub fn uninject(text: &str) -> Result<Opened, RestoreError> {
    envelope::open(text)
}

/// The original of an injected file, and any other file as it is.
///
/// # Errors
/// If what it holds of the original was changed.
pub fn original(text: &str) -> Result<Opened, RestoreError> {
    if envelope::is_sealed(text) {
        envelope::open(text)
    } else {
        Ok(Opened { original: text.to_owned(), edited: false })
    }
}
