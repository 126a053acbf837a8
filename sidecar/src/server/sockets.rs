//! Listening sockets: bound when a listener is accepted, listening when it takes effect, kept by address for as long as
//! some listener has the address.
//!
//! With SO_REUSEPORT each worker has a socket of its own, and the kernel spreads connections over them. A socket that is
//! closed loses what waits in its queue; so an update that keeps the address and its settings keeps the very sockets.
//!
//! A Unix domain socket is one for all workers, as in Envoy: there is no SO_REUSEPORT for it. A file that an earlier process
//! left at its path is in the way of nobody: it is replaced, if it is a socket.
//!
//! Listeners that take effect together settle together who has which address: [`Sockets::settle`].

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::config::address::{self, Address};
use crate::config::listener::{Listener, SocketSettings};
use crate::config::socket_option::{self, SocketOption, State};
use crate::transport::ListeningSocket;

/// Length of the accept queue unless the listener says otherwise. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;
/// Idle time before the first probe of TCP keep-alive, where only other parts of it are set: Linux's default.
const KEEPALIVE: Duration = Duration::from_secs(7200);

/// An address that only one listener can have: with its name where the address alone says nothing (port 0: each such
/// listener gets its own).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key(Address, Option<Arc<str>>);

/// An address with the settings of its sockets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    address: Key,
    settings: Arc<SocketSettings>,
    /// There are sockets.
    bound: bool,
}

impl Place {
    /// Of a listener, in the order of its addresses.
    fn all(listener: &Listener) -> Vec<Self> {
        let place = |(address, settings): (&Address, &Arc<SocketSettings>)| {
            let own = (address.port() == Some(0)).then(|| Arc::clone(&listener.name));
            Self {
                address: Key(address.clone(), own),
                settings: Arc::clone(settings),
                bound: listener.bind_to_port,
            }
        };
        listener.addresses().map(place).collect()
    }
}

/// The sockets of one place.
#[derive(Debug)]
struct Bound {
    /// One for each worker, or one for all.
    sockets: Vec<Socket>,
    local: Address,
    listening: bool,
}

/// Whether a listener can take effect now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Settled {
    /// It can have its addresses.
    Now,
    /// Not before that listener has left the address, as its next version will.
    After(Arc<str>),
    /// That listener has the address, and keeps it.
    Taken(Arc<str>, Address),
}

/// For each worker the sockets of a listener.
pub(super) type Given = Vec<Vec<ListeningSocket>>;

/// All listening sockets of the process.
#[derive(Debug)]
pub(super) struct Sockets {
    workers: usize,
    bound: HashMap<Place, Bound>,
    /// Places of listeners that were accepted and have not taken effect yet.
    reserved: HashMap<Arc<str>, Vec<Place>>,
    /// Places of listeners in effect.
    open: HashMap<Arc<str>, Vec<Place>>,
}

impl Sockets {
    /// None yet, for so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, bound: HashMap::new(), reserved: HashMap::new(), open: HashMap::new() }
    }

    /// Binds the addresses of a listener, unless they are bound.
    ///
    /// # Errors
    /// What the system says, with the address. Nothing is bound then that was not before.
    pub(super) fn reserve(&mut self, listener: &Listener) -> Result<(), (Address, io::Error)> {
        let places = Place::all(listener);
        let mut new = Vec::new();
        for place in &places {
            if place.bound && !self.bound.contains_key(place) {
                let shares = self
                    .bound
                    .keys()
                    .any(|other| other.address == place.address && other.settings.reuse_port);
                let bound = Bound::bind(place, self.workers, shares)
                    .map_err(|error| (place.address.0.clone(), error))?;
                new.push((place.clone(), bound));
            }
        }
        self.bound.extend(new);
        self.reserved.insert(Arc::clone(&listener.name), places);
        Ok(())
    }

    /// Which of these listeners can take effect together, each in place of what has its name now. Addresses may go round
    /// among them; one that has to stay keeps what it has.
    pub(super) fn settle(&self, wanted: &[&Listener]) -> Vec<Settled> {
        let mut settled = vec![Settled::Now; wanted.len()];
        loop {
            let moves = |name: &Arc<str>| {
                let mut all = wanted.iter().zip(&settled);
                all.any(|(it, how)| it.name == *name && *how == Settled::Now)
            };
            let staying = self.open.iter().filter(|(name, _)| !moves(name));
            let mut taken: HashMap<&Key, Arc<str>> = staying
                .flat_map(|(name, places)| {
                    places.iter().map(move |it| (&it.address, Arc::clone(name)))
                })
                .collect();
            let places: Vec<Vec<Place>> = wanted.iter().map(|it| Place::all(it)).collect();
            let mut refused = None;
            for (index, (listener, places)) in wanted.iter().zip(&places).enumerate() {
                if settled.get(index) != Some(&Settled::Now) {
                    continue;
                }
                let rival = places.iter().find_map(|place| {
                    let name = taken.get(&place.address).filter(|name| **name != listener.name)?;
                    Some((Arc::clone(name), place.address.clone()))
                });
                if let Some((name, address)) = rival {
                    refused = Some((index, self.leaves(&name, &address)));
                    break;
                }
                taken.extend(places.iter().map(|it| (&it.address, Arc::clone(&listener.name))));
            }
            // One that has to stay stands in the way of others: look again.
            match refused {
                None => return settled,
                Some((index, how)) => {
                    if let Some(slot) = settled.get_mut(index) {
                        *slot = how;
                    }
                }
            }
        }
    }

    /// Whether a version of this listener that is accepted already is elsewhere.
    fn leaves(&self, name: &Arc<str>, address: &Key) -> Settled {
        match self.reserved.get(name) {
            Some(next) if next.iter().all(|place| place.address != *address) => {
                Settled::After(Arc::clone(name))
            }
            _ => Settled::Taken(Arc::clone(name), address.0.clone()),
        }
    }

    /// The listener takes effect: its sockets for each worker, unless they are open already.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub(super) fn open(
        &mut self,
        listener: &Listener,
    ) -> Result<Option<Given>, (Address, io::Error)> {
        let places = Place::all(listener);
        if self.open.get(&listener.name) == Some(&places) {
            self.reserved.remove(&listener.name);
            return Ok(None);
        }
        self.reserve(listener)?;
        let mut given: Given = (0..self.workers).map(|_| Vec::new()).collect();
        for place in places.iter().filter(|place| place.bound) {
            let Some(bound) = self.bound.get_mut(place) else { continue };
            let sockets = bound
                .listen(&place.settings, self.workers)
                .map_err(|error| (place.address.0.clone(), error))?;
            for (worker, socket) in given.iter_mut().zip(sockets) {
                worker.push(socket);
            }
        }
        self.reserved.remove(&listener.name);
        self.open.insert(Arc::clone(&listener.name), places);
        Ok(listener.bind_to_port.then_some(given))
    }

    /// The listener is gone, or never came into effect. Its sockets go with [`Sockets::close_unused`].
    pub(super) fn close(&mut self, name: &str) {
        self.reserved.remove(name);
        self.open.remove(name);
    }

    /// Closes what no listener has any more. After an update as a whole, so that an address can go from one to another.
    pub(super) fn close_unused(&mut self) {
        let (reserved, open) = (&self.reserved, &self.open);
        let used: HashSet<&Place> = reserved.values().chain(open.values()).flatten().collect();
        self.bound.retain(|place, _| used.contains(place));
    }

    /// Closes everything.
    pub(super) fn close_all(&mut self) {
        self.bound.clear();
        self.reserved.clear();
        self.open.clear();
    }

    /// Where a listener listens, in the order of its addresses: with the port the system chose, if it was 0. Without sockets
    /// it is where it would be.
    pub(super) fn local_addresses(&self, name: &str) -> Vec<Address> {
        let places = self.open.get(name).into_iter().flatten();
        places
            .map(|place| {
                self.bound.get(place).map_or(&place.address.0, |bound| &bound.local).clone()
            })
            .collect()
    }
}

/// One listening socket, for the admin interface, and where it is.
///
/// # Errors
/// What the system says.
pub(super) fn simple(
    address: &Address,
    mode: Option<u32>,
) -> io::Result<(ListeningSocket, Address)> {
    match address {
        Address::Ip(address) => {
            let socket = std::net::TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let bound = socket.local_addr()?;
            Ok((ListeningSocket::Tcp(socket), bound.into()))
        }
        Address::Pipe(path) => {
            let socket = pipe(path, mode, &[])?;
            socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
            let socket = ListeningSocket::Unix(OwnedFd::from(socket).into(), Arc::clone(path));
            Ok((socket, address.clone()))
        }
    }
}

impl Bound {
    /// `shares`: we have sockets at this address, with other settings.
    fn bind(place: &Place, workers: usize, shares: bool) -> io::Result<Self> {
        let settings = &place.settings;
        let mut address = match &place.address.0 {
            Address::Ip(address) => *address,
            Address::Pipe(path) => {
                let local = place.address.0.clone();
                return Ok(Self {
                    sockets: vec![pipe(path, settings.mode, &settings.options)?],
                    local,
                    listening: false,
                });
            }
        };
        if !settings.reuse_port || !shares {
            // Without SO_REUSEPORT first: with it, a second process that runs by mistake would quietly get its share.
            let probe = socket(address, settings, false)?;
            if address.port() == 0
                && let Some(chosen) = probe.local_addr()?.as_socket()
            {
                address = chosen;
            }
            if !settings.reuse_port {
                return Ok(Self { sockets: vec![probe], local: address.into(), listening: false });
            }
        }
        let sockets = (0..workers)
            .map(|_| socket(address, settings, true))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { sockets, local: address.into(), listening: false })
    }

    /// Begins to listen, all sockets before any of them is handed out.
    fn listen(
        &mut self,
        settings: &SocketSettings,
        workers: usize,
    ) -> io::Result<Vec<ListeningSocket>> {
        if !self.listening {
            let backlog = settings.backlog.unwrap_or(BACKLOG);
            let ipv6 = self.local.socket().is_some_and(|address| address.is_ipv6());
            for socket in &self.sockets {
                socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
                let socket = SockRef::from(socket);
                socket_option::apply(&settings.options, State::Listening, ipv6, &socket)?;
            }
            self.listening = true;
        }
        let each = self.sockets.iter().cycle().take(workers);
        each.map(|socket| {
            let socket = socket.try_clone()?;
            Ok(match &self.local {
                Address::Ip(_) => ListeningSocket::Tcp(socket.into()),
                Address::Pipe(path) => {
                    ListeningSocket::Unix(OwnedFd::from(socket).into(), Arc::clone(path))
                }
            })
        })
        .collect()
    }
}

/// Binds a Unix domain socket.
fn pipe(path: &str, mode: Option<u32>, options: &[SocketOption]) -> io::Result<Socket> {
    let file = address::pipe_path(path);
    let has_file = !path.starts_with('@');
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket_option::apply(options, State::Prebind, false, &SockRef::from(&socket))?;
    // What is no socket stays, and the path is in use.
    if has_file && fs::symlink_metadata(&file).is_ok_and(|it| it.file_type().is_socket()) {
        fs::remove_file(&file)?;
    }
    socket.bind(&SockAddr::unix(&file)?)?;
    if let Some(mode) = mode {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    }
    socket_option::apply(options, State::Bound, false, &SockRef::from(&socket))?;
    Ok(socket)
}

fn socket(address: SocketAddr, settings: &SocketSettings, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    let ipv6 = address.is_ipv6();
    if ipv6 {
        // As Envoy without `ipv4_compat`.
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier process that still linger do not stand in the way.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if let Some(keepalive) = &settings.keepalive {
        // Connections inherit it.
        socket.set_tcp_keepalive(&keepalive.of_socket(KEEPALIVE))?;
    }
    socket.set_nonblocking(true)?;
    let reference = SockRef::from(&socket);
    socket_option::foreign_addresses(settings.transparent, settings.freebind, ipv6, &reference)?;
    socket_option::apply(&settings.options, State::Prebind, ipv6, &reference)?;
    socket.bind(&address.into())?;
    socket_option::apply(&settings.options, State::Bound, ipv6, &SockRef::from(&socket))?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
