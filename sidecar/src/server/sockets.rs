//! Listening sockets: bound when a listener is accepted, listening when it takes effect, kept by address for as long as
//! some listener has the address.
//!
//! With SO_REUSEPORT each worker has a socket of its own, and the kernel spreads connections over them. A socket that is
//! closed loses what waits in its queue; so an update that keeps the address keeps the very sockets.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::listener::Listener;

/// Length of the accept queue unless the listener says otherwise. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// An address, with the listener's name where the address alone says nothing (port 0: each such listener gets its own).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    address: SocketAddr,
    own: Option<Arc<str>>,
}

impl Place {
    fn of(listener: &Listener) -> Self {
        let own = (listener.address.port() == 0).then(|| Arc::clone(&listener.name));
        Self { address: listener.address, own }
    }
}

/// The sockets of one place.
#[derive(Debug)]
struct Bound {
    /// One for each worker, or one for all.
    sockets: Vec<Socket>,
    local: SocketAddr,
    listening: bool,
}

/// All listening sockets of the process.
#[derive(Debug)]
pub(super) struct Sockets {
    workers: usize,
    bound: HashMap<Place, Bound>,
    /// Places of listeners that were accepted and have not taken effect yet.
    reserved: HashMap<Arc<str>, Place>,
    /// Places of listeners in effect.
    open: HashMap<Arc<str>, Place>,
}

impl Sockets {
    /// None yet, for so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, bound: HashMap::new(), reserved: HashMap::new(), open: HashMap::new() }
    }

    /// Binds the address of a listener, unless it is bound.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn reserve(&mut self, listener: &Listener) -> io::Result<()> {
        if !listener.bind_to_port {
            return Ok(());
        }
        let place = Place::of(listener);
        if !self.bound.contains_key(&place) {
            let bound = Bound::bind(listener, self.workers)?;
            self.bound.insert(place.clone(), bound);
        }
        self.reserved.insert(Arc::clone(&listener.name), place);
        Ok(())
    }

    /// The listener takes effect: a socket for each worker, if it is not open at this place already.
    ///
    /// # Errors
    /// If the address cannot be bound or is another listener's.
    pub(super) fn open(&mut self, listener: &Listener) -> io::Result<Option<Vec<TcpListener>>> {
        if !listener.bind_to_port {
            self.close(&listener.name);
            return Ok(None);
        }
        let place = Place::of(listener);
        let other =
            self.open.iter().find(|(name, open)| **open == place && **name != listener.name);
        if let Some((name, _)) = other {
            let taken = format!("the listener {name:?} has this address already");
            return Err(io::Error::new(io::ErrorKind::AddrInUse, taken));
        }
        if self.open.get(&listener.name) == Some(&place) {
            self.reserved.remove(&listener.name);
            return Ok(None);
        }
        self.reserve(listener)?;
        let workers = self.workers;
        let Some(bound) = self.bound.get_mut(&place) else {
            return Err(io::Error::other("it was bound a moment ago"));
        };
        let sockets = bound.listen(listener, workers)?;
        self.reserved.remove(&listener.name);
        self.open.insert(Arc::clone(&listener.name), place);
        Ok(Some(sockets))
    }

    /// The listener is gone, or never came into effect. Its sockets go with [`Sockets::close_unused`].
    pub(super) fn close(&mut self, name: &str) {
        self.reserved.remove(name);
        self.open.remove(name);
    }

    /// Closes what no listener has any more. After an update as a whole, so that an address can go from one to another.
    pub(super) fn close_unused(&mut self) {
        let (reserved, open) = (&self.reserved, &self.open);
        self.bound
            .retain(|place, _| reserved.values().chain(open.values()).any(|used| used == place));
    }

    /// Closes everything.
    pub(super) fn close_all(&mut self) {
        self.bound.clear();
        self.reserved.clear();
        self.open.clear();
    }

    /// Where a listener listens: with the port the system chose, if it was 0.
    pub(super) fn local_address(&self, name: &str) -> Option<SocketAddr> {
        self.bound.get(self.open.get(name)?).map(|bound| bound.local)
    }
}

impl Bound {
    fn bind(listener: &Listener, workers: usize) -> io::Result<Self> {
        // Without SO_REUSEPORT first: with it, a second process that runs by mistake would quietly get its share.
        let probe = socket(listener.address, false)?;
        let mut address = listener.address;
        if address.port() == 0
            && let Some(chosen) = probe.local_addr()?.as_socket()
        {
            address = chosen;
        }
        if !listener.enable_reuse_port {
            return Ok(Self { sockets: vec![probe], local: address, listening: false });
        }
        drop(probe);
        let sockets =
            (0..workers).map(|_| socket(address, true)).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { sockets, local: address, listening: false })
    }

    /// Begins to listen, all sockets before any of them is handed out.
    fn listen(&mut self, listener: &Listener, workers: usize) -> io::Result<Vec<TcpListener>> {
        if !self.listening {
            let backlog = listener.tcp_backlog.unwrap_or(BACKLOG);
            for socket in &self.sockets {
                socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
            }
            self.listening = true;
        }
        let each = self.sockets.iter().cycle().take(workers);
        each.map(|socket| Ok(socket.try_clone()?.into())).collect()
    }
}

fn socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // As Envoy without `ipv4_compat`.
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier process that still linger do not stand in the way.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::bootstrap;

    fn listener(name: &str, address: SocketAddr) -> Arc<Listener> {
        let yaml = format!(
            "static_resources: {{listeners: [{{name: {name}, address: {{socket_address: {{address: {}, port_value: {}}}}}, \
             filter_chains: [{{filters: [{{name: t, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}}}]}}]}}], \
             clusters: [{{name: c, type: STATIC}}]}}",
            address.ip(),
            address.port()
        );
        let bootstrap = bootstrap::read(None, Some(&yaml), &bootstrap::Options::default());
        let bootstrap = bootstrap.unwrap_or_else(|error| panic!("{error}"));
        Arc::clone(&bootstrap.listeners[0])
    }

    fn any_port() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn an_address_that_another_process_has_is_refused() {
        let taken = TcpListener::bind(any_port()).unwrap();
        let mut sockets = Sockets::new(2);
        let listener = listener("a", taken.local_addr().unwrap());
        let error = sockets.reserve(&listener).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn every_worker_gets_a_socket_at_the_same_port() {
        let mut sockets = Sockets::new(3);
        let given = sockets.open(&listener("a", any_port())).unwrap().unwrap();
        let ports: Vec<u16> = given.iter().map(|it| it.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        assert_eq!(sockets.local_address("a").unwrap().port(), ports[0]);
    }

    #[test]
    fn an_update_at_the_same_address_keeps_the_sockets() {
        let mut sockets = Sockets::new(1);
        let first = listener("a", any_port());
        assert!(sockets.open(&first).unwrap().is_some());
        sockets.reserve(&first).unwrap();
        assert!(sockets.open(&first).unwrap().is_none());
    }

    #[test]
    fn an_address_goes_from_a_removed_listener_to_a_new_one_without_being_closed() {
        let mut sockets = Sockets::new(1);
        let probe = TcpListener::bind(any_port()).unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        sockets.open(&listener("a", address)).unwrap();
        let next = listener("b", address);
        sockets.reserve(&next).unwrap();
        assert!(sockets.open(&next).is_err(), "while a has it");
        sockets.close("a");
        assert!(sockets.open(&next).unwrap().is_some());
        sockets.close_unused();
        assert_eq!(sockets.local_address("b"), Some(address));
        sockets.close("b");
        sockets.close_unused();
        assert!(TcpListener::bind(address).is_ok());
    }
}
