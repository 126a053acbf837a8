//! Connections to endpoints that leave.

use std::net::SocketAddr;

use http_body_util::Empty;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::*;
use crate::cluster::Manager;
use crate::cluster::testing::{assignment, config, group};
use crate::config::cluster::Discovery;
use crate::config::endpoint::EndpointAddress;
use crate::config::proxy_protocol::{TlvTypes, UpstreamProxyProtocol, Version};
use crate::stats::Registry;
use crate::tls;

/// A cluster of one endpoint.
fn cluster(address: SocketAddr) -> (Manager, Arc<Cluster>) {
    cluster_with(config("c"), address)
}

fn cluster_with(
    mut config: crate::config::cluster::Cluster,
    address: SocketAddr,
) -> (Manager, Arc<Cluster>) {
    let mut manager = Manager::new(&Registry::new(0));
    let mut endpoint = crate::cluster::testing::endpoint(0);
    endpoint.address = EndpointAddress::Ip(address);
    let endpoints = assignment("c", vec![group(0, vec![endpoint])]);
    config.discovery = Discovery::Static(Arc::new(endpoints));
    manager.set(Arc::new(config), &mut tls::Contexts::new()).unwrap();
    let cluster = Arc::clone(manager.get("c").unwrap());
    (manager, cluster)
}

#[tokio::test]
async fn an_idle_connection_to_an_endpoint_that_is_gone_is_closed_when_the_pool_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut manager, cluster) = cluster(listener.local_addr().unwrap());
    let endpoint = cluster.hosts.load().endpoints().next().map(Arc::clone).unwrap();
    let pools = Pools::<Empty<bytes::Bytes>>::default();
    LocalSet::new()
        .run_until(async {
            let pool = pools.get(&endpoint);
            let priority = RoutingPriority::Default;
            let acquired = pool.wait(&cluster, Protocol::Http1, priority, "").await;
            let Ok(Acquired::Http1(connection)) = acquired else { panic!("no connection") };
            let (mut server, _) = listener.accept().await.unwrap();
            pool.give_back(connection, &cluster, true);

            pools.release(&[endpoint.id]);
            assert_eq!(pool.h1.borrow().len(), 1, "it is still somebody's endpoint");
            manager.remove("c");
            let gone: Vec<EndpointId> = manager.take_gone().iter().map(|it| it.id).collect();
            pools.release(&gone);
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0, "closed");
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_was_retired_while_it_served_a_request_serves_no_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_manager, cluster) = cluster(listener.local_addr().unwrap());
    let endpoint = cluster.hosts.load().endpoints().next().map(Arc::clone).unwrap();
    let pools = Pools::<Empty<bytes::Bytes>>::default();
    LocalSet::new()
        .run_until(async {
            let pool = pools.get(&endpoint);
            let priority = RoutingPriority::Default;
            let wait = || async {
                match pool.wait(&cluster, Protocol::Http1, priority, "").await {
                    Ok(Acquired::Http1(connection)) => connection,
                    _ => panic!("no connection"),
                }
            };
            let busy = wait().await;
            let (mut first, _) = listener.accept().await.unwrap();
            pools.retire(&[endpoint.id]);
            pool.give_back(busy, &cluster, true);
            assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0, "closed");

            let later = wait().await;
            pool.give_back(later, &cluster, true);
            assert_eq!(pool.h1.borrow().len(), 1, "one that was made since is kept");
        })
        .await;
}

#[tokio::test]
async fn a_client_that_an_endpoint_is_told_of_has_connections_of_its_own_that_end_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config("c");
    config.proxy_protocol = Some(Arc::new(UpstreamProxyProtocol {
        version: Version::One,
        pass_through: TlvTypes::None,
        added: [].into(),
    }));
    let (_manager, cluster) = cluster_with(config, listener.local_addr().unwrap());
    let endpoint = cluster.hosts.load().endpoints().next().map(Arc::clone).unwrap();
    let pools = Pools::<Empty<bytes::Bytes>>::default();
    let (one, other) = (Rc::new(1), Rc::new(2));
    let pool_of = |client: &Rc<u64>| {
        let connection: Weak<u64> = Rc::downgrade(client);
        let port = u16::try_from(**client).unwrap();
        let address = |port: u16| ([1, 2, 3, 4], port).into();
        let ends = Ends::of(address(port), address(80));
        pools.get_for(&endpoint, || Client { id: **client, ends, connection })
    };
    LocalSet::new()
        .run_until(async {
            let pool = pool_of(&one);
            assert!(Rc::ptr_eq(&pool, &pool_of(&one)));
            assert!(!Rc::ptr_eq(&pool, &pool_of(&other)));
            let priority = RoutingPriority::Default;
            let acquired = pool.wait(&cluster, Protocol::Http1, priority, "").await;
            let Ok(Acquired::Http1(connection)) = acquired else { panic!("no connection") };
            let (mut server, _) = listener.accept().await.unwrap();
            let expected = b"PROXY TCP4 1.2.3.4 1.2.3.4 1 80\r\n";
            let mut header = [0; 33];
            server.read_exact(&mut header).await.unwrap();
            assert_eq!(&header, expected);
            pool.give_back(connection, &cluster, true);
            drop(pool);
            pools.sweep();
            assert_eq!(pools.by_client.borrow().len(), 1, "the other has never connected");
            drop(one);
            pools.sweep();
            assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0, "closed");
            pools.sweep();
            assert!(pools.by_client.borrow().is_empty());
        })
        .await;
}
