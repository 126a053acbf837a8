use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use super::*;
use crate::config::bootstrap;

/// A listener at these addresses, with more fields in flow YAML.
fn listener_with(name: &str, addresses: &[SocketAddr], more: &str) -> Arc<Listener> {
    let address = |address: &SocketAddr| {
        format!(
            "{{socket_address: {{address: '{}', port_value: {}}}}}",
            address.ip(),
            address.port()
        )
    };
    let (first, rest) = addresses.split_first().unwrap();
    let rest: Vec<String> =
        rest.iter().map(|other| format!("{{address: {}}}", address(other))).collect();
    let yaml = format!(
        "static_resources: {{listeners: [{{name: {name}, address: {}, additional_addresses: [{}], \
         filter_chains: [{{filters: [{{name: t, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}}}]}}]{more}}}], \
         clusters: [{{name: c, type: STATIC}}]}}",
        address(first),
        rest.join(", ")
    );
    let bootstrap = bootstrap::read(None, Some(&yaml), &bootstrap::Options::default());
    let bootstrap = bootstrap.unwrap_or_else(|error| panic!("{error}"));
    Arc::clone(&bootstrap.listeners[0])
}

fn listener(name: &str, address: SocketAddr) -> Arc<Listener> {
    listener_with(name, &[address], "")
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// An address that nobody has at the moment.
fn free() -> SocketAddr {
    TcpListener::bind(any_port()).unwrap().local_addr().unwrap()
}

/// For each worker the sockets of TCP.
fn opened(sockets: &mut Sockets, listener: &Listener) -> Option<Vec<Vec<TcpListener>>> {
    let tcp = |socket| match socket {
        ListeningSocket::Tcp(socket) => socket,
        ListeningSocket::Unix(_, path) => panic!("{path}"),
    };
    let given = sockets.open(listener).map_err(|(_, error)| error).unwrap()?;
    Some(given.into_iter().map(|worker| worker.into_iter().map(tcp).collect()).collect())
}

#[test]
fn an_address_that_another_process_has_is_refused() {
    let taken = TcpListener::bind(any_port()).unwrap();
    let mut sockets = Sockets::new(2);
    let address = taken.local_addr().unwrap();
    let (at, error) = sockets.reserve(&listener("a", address)).unwrap_err();
    assert_eq!((at, error.kind()), (address.into(), io::ErrorKind::AddrInUse));
}

#[test]
fn every_worker_gets_a_socket_at_the_same_port() {
    let mut sockets = Sockets::new(3);
    let given = opened(&mut sockets, &listener("a", any_port())).unwrap();
    let ports: Vec<u16> = given.iter().map(|it| it[0].local_addr().unwrap().port()).collect();
    assert_eq!(ports.len(), 3);
    assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    assert_eq!(sockets.local_addresses("a")[0].port(), Some(ports[0]));
}

#[test]
fn every_address_has_sockets_and_all_or_none_are_bound() {
    let mut sockets = Sockets::new(2);
    let (first, second) = (free(), free());
    let given = opened(&mut sockets, &listener_with("a", &[first, second], "")).unwrap();
    for worker in &given {
        let at: Vec<_> = worker.iter().map(|it| it.local_addr().unwrap()).collect();
        assert_eq!(at, [first, second]);
    }
    assert_eq!(sockets.local_addresses("a"), [first, second]);
    let (third, taken) = (free(), TcpListener::bind(any_port()).unwrap());
    let next = listener_with("b", &[third, taken.local_addr().unwrap()], "");
    assert!(sockets.reserve(&next).is_err());
    assert!(TcpListener::bind(third).is_ok(), "it was not bound by half");
}

#[test]
fn an_update_at_the_same_address_keeps_the_sockets() {
    let mut sockets = Sockets::new(1);
    let first = listener("a", any_port());
    assert!(opened(&mut sockets, &first).is_some());
    sockets.reserve(&first).unwrap();
    assert!(opened(&mut sockets, &first).is_none());
}

#[test]
fn other_settings_mean_other_sockets_at_the_same_address() {
    let mut sockets = Sockets::new(1);
    let address = free();
    opened(&mut sockets, &listener("a", address));
    let keepalive = ", socket_options: [{level: 1, name: 9, int_value: 1}]";
    let next = listener_with("a", &[address], keepalive);
    sockets.reserve(&next).unwrap();
    assert_eq!(sockets.settle(&[&next]), [Settled::Now]);
    let given = opened(&mut sockets, &next).unwrap();
    assert!(SockRef::from(&given[0][0]).keepalive().unwrap());
    sockets.close_unused();
    assert_eq!(sockets.bound.len(), 1);
}

#[test]
fn without_a_port_of_its_own_for_each_worker_other_settings_are_refused() {
    let mut sockets = Sockets::new(1);
    let address = free();
    let shared = ", enable_reuse_port: false";
    opened(&mut sockets, &listener_with("a", &[address], shared));
    let next = ", enable_reuse_port: false, tcp_backlog_size: 7";
    let (_, error) = sockets.reserve(&listener_with("a", &[address], next)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn an_address_goes_from_a_removed_listener_to_a_new_one_without_being_closed() {
    let mut sockets = Sockets::new(1);
    let address = free();
    opened(&mut sockets, &listener("a", address));
    let waiting = std::net::TcpStream::connect(address).unwrap();
    let next = listener("b", address);
    sockets.reserve(&next).unwrap();
    assert_eq!(
        sockets.settle(&[&next]),
        [Settled::Taken("a".into(), address.into())],
        "while a has it"
    );
    sockets.close("a");
    assert_eq!(sockets.settle(&[&next]), [Settled::Now]);
    let given = opened(&mut sockets, &next).unwrap();
    sockets.close_unused();
    let (_, peer) = given[0][0].accept().unwrap();
    assert_eq!(peer, waiting.local_addr().unwrap(), "who waited is not lost");
    assert_eq!(sockets.local_addresses("b"), [address]);
    drop(given);
    sockets.close("b");
    sockets.close_unused();
    assert!(TcpListener::bind(address).is_ok());
}

#[test]
fn addresses_go_round_among_listeners_that_change_together() {
    let mut sockets = Sockets::new(1);
    let [one, two, three] = [free(), free(), free()];
    for (name, address) in [("a", one), ("b", two), ("c", three)] {
        opened(&mut sockets, &listener(name, address));
    }
    let next = [listener("a", two), listener("b", three), listener("c", one)];
    let wanted: Vec<&Listener> = next.iter().map(|it| &**it).collect();
    assert_eq!(sockets.settle(&wanted), vec![Settled::Now; 3]);
    for listener in &next {
        let given = opened(&mut sockets, listener).unwrap();
        assert_eq!(listener.address, given[0][0].local_addr().unwrap());
    }
    sockets.close_unused();
    assert_eq!(sockets.bound.len(), 3);
    // Two of three: who stays keeps what it has, and who wants it has to stay too.
    let next = [listener("a", one), listener("b", two)];
    let wanted: Vec<&Listener> = next.iter().map(|it| &**it).collect();
    let settled = sockets.settle(&wanted);
    assert_eq!(settled[0], Settled::Taken("c".into(), one.into()));
    assert_eq!(settled[1], Settled::Taken("a".into(), two.into()));
}

#[test]
fn an_address_that_is_about_to_be_left_is_waited_for() {
    let mut sockets = Sockets::new(1);
    let (one, two) = (free(), free());
    opened(&mut sockets, &listener("a", one));
    let next = listener("b", one);
    sockets.reserve(&next).unwrap();
    sockets.reserve(&listener("a", two)).unwrap();
    assert_eq!(sockets.settle(&[&next]), [Settled::After("a".into())]);
}

#[test]
fn a_listener_without_a_socket_has_its_address_all_the_same() {
    let mut sockets = Sockets::new(1);
    let address = free();
    let unbound = listener_with("a", &[address], ", bind_to_port: false");
    sockets.reserve(&unbound).unwrap();
    assert!(opened(&mut sockets, &unbound).is_none());
    assert!(TcpListener::bind(address).is_ok());
    assert_eq!(sockets.local_addresses("a"), [address]);
    let rival = listener_with("b", &[address], ", bind_to_port: false");
    assert_eq!(sockets.settle(&[&rival]), [Settled::Taken("a".into(), address.into())]);
    let bound = listener("a", address);
    assert_eq!(sockets.settle(&[&bound]), [Settled::Now]);
    assert!(opened(&mut sockets, &bound).is_some());
}

#[test]
fn settings_are_set_on_the_sockets() {
    let mut sockets = Sockets::new(1);
    let more = ", freebind: true, tcp_keepalive: {keepalive_time: 7}, \
                socket_options: [{level: 1, name: 8, int_value: 65536, state: STATE_LISTENING}]";
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
    let given = opened(&mut sockets, &listener_with("a", &[elsewhere], more)).unwrap();
    let socket = SockRef::from(&given[0][0]);
    assert!(socket.freebind_v4().unwrap(), "192.0.2.1 is not ours");
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 7);
    assert!(socket.recv_buffer_size().unwrap() >= 65_536);
}

fn at_pipe(name: &str, path: &str, mode: u32) -> Arc<Listener> {
    let mut listener = Listener::clone(&listener(name, any_port()));
    listener.address = Address::Pipe(path.into());
    listener.socket = Arc::new(SocketSettings {
        mode: (mode != 0).then_some(mode),
        ..SocketSettings::clone(&listener.socket)
    });
    Arc::new(listener)
}

fn unix(given: &[Vec<ListeningSocket>]) -> Vec<&std::os::unix::net::UnixListener> {
    let each = given.iter().flatten().map(|socket| match socket {
        ListeningSocket::Unix(socket, _) => socket,
        ListeningSocket::Tcp(_) => panic!("a socket of TCP"),
    });
    each.collect()
}

#[test]
fn all_workers_share_the_one_socket_of_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s").display().to_string();
    let mut sockets = Sockets::new(2);
    let given = sockets.open(&at_pipe("a", &path, 0o600)).unwrap().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let _client = UnixStream::connect(&path).unwrap();
    let [first, second] = unix(&given)[..] else { panic!("for each worker one") };
    assert!(first.accept().is_ok());
    assert_eq!(second.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "it was taken");
    assert_eq!(sockets.local_addresses("a"), [Address::Pipe(path.into())]);
}

#[test]
fn a_socket_that_was_left_at_a_path_is_replaced_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s").display().to_string();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(Sockets::new(1).open(&at_pipe("a", &path, 0)).is_ok());
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    let (at, error) = Sockets::new(1).reserve(&at_pipe("a", &path, 0)).unwrap_err();
    assert_eq!((at, error.kind()), (Address::Pipe((*path).into()), io::ErrorKind::AddrInUse));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn a_name_with_an_at_sign_has_no_file() {
    let name = format!("@outrigger-test-{}", std::process::id());
    let mut sockets = Sockets::new(1);
    assert!(sockets.open(&at_pipe("a", &name, 0)).is_ok());
    assert!(!std::path::Path::new(&name).exists());
    let address = SockAddr::unix(address::pipe_path(&name)).unwrap();
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    client.connect(&address).unwrap();
}
