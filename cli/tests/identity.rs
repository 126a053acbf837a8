//! Identities over their whole life: two sidecars that trust each other, a new root under them, and a revocation.

// Helpers of tests, in a crate that is nothing but tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use support::{Mesh, Sidecar, free_address, until};

/// Nothing in these tests is silent for so long, unless it hangs.
const HANGS: Duration = Duration::from_secs(60);

/// `web`, with a local listener for `echo`, whose application sends back whatever comes.
struct Pair {
    mesh: Mesh,
    way: SocketAddr,
    web: Sidecar,
    _echo: Sidecar,
}

fn pair() -> Pair {
    let mesh = Mesh::start();
    let application = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = application.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in application.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut back = connection.try_clone().unwrap();
                let _ = std::io::copy(&mut connection, &mut back);
            });
        }
    });
    let services = format!(
        "{{kind: Service, name: echo, spec: {{ports: [{{port: {port}, protocol: tcp}}]}}}}\n---\n{{kind: Service, name: web, spec: {{ports: [{{port: 1, protocol: http}}]}}}}\n"
    );
    mesh.expect(0, &["apply", "-f", "-"], &services);
    let echo = ["--app-port".to_owned(), format!("{port}:tcp")];
    let echo = mesh.sidecar("echo", "echo-1", &echo);
    let way = free_address();
    let web =
        mesh.sidecar("web", "web-1", &["--outbound".to_owned(), format!("echo:{port}={way}")]);
    until(|| said(way).is_some());
    Pair { mesh, way, web, _echo: echo }
}

/// A connection over both sidecars that has carried something; `None` if it is not let through.
fn said(way: SocketAddr) -> Option<TcpStream> {
    let mut connection = TcpStream::connect(way).ok()?;
    connection.set_read_timeout(Some(HANGS)).unwrap();
    says(&mut connection).then_some(connection)
}

fn says(connection: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    connection.write_all(b"hello").is_ok()
        && connection.read_exact(&mut answer).is_ok()
        && &answer == b"hello"
}

fn pins(mesh: &Mesh) -> Vec<String> {
    let text = mesh.expect(0, &["ca", "status", "-o", "json"], "");
    let authority: serde_json::Value = serde_json::from_str(&text).unwrap();
    let roots = authority["roots"].as_array().unwrap().iter();
    roots.map(|it| it["pin"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_new_root_takes_over_without_a_broken_connection_once_everybody_trusts_it() {
    let mut pair = pair();
    let mut open = said(pair.way).unwrap();
    let before = pins(&pair.mesh);
    assert_eq!(before.len(), 1);
    pair.mesh.expect(0, &["ca", "rotate", "--wait", "60s"], "");
    let after = pins(&pair.mesh);
    assert_eq!(after.len(), 1);
    assert_ne!(after, before);
    assert!(says(&mut open), "a connection of before goes on");
    assert!(said(pair.way).is_some(), "new ones are made");
    // Those that join now trust the new root alone.
    let _third = pair.mesh.sidecar("web", "web-2", &[]);

    pair.web.kill();
    until(|| pair.mesh.expect(0, &["identity", "list"], "").contains("DOWN"));
    let text = pair.mesh.expect(5, &["ca", "rotate", "--wait", "1s"], "");
    assert!(text.contains("web-1 is not connected"), "{text}");
    assert!(text.contains("outrigger identity revoke web-1.web"), "{text}");
    assert_eq!(pins(&pair.mesh)[0], after[0], "nobody is left behind");
    pair.mesh.expect(0, &["identity", "revoke", "web-1.web"], "");
    until(|| pins(&pair.mesh).len() == 1);
    assert_ne!(pins(&pair.mesh), after, "it goes on by itself");
}

#[test]
fn a_revoked_identity_loses_its_open_connections_and_gets_no_new_ones() {
    let pair = pair();
    let mut open = said(pair.way).unwrap();
    assert!(pair.mesh.expect(1, &["identity", "revoke", "nobody"], "").contains("nobody"));
    assert!(says(&mut open));
    let text = pair.mesh.expect(0, &["identity", "revoke", "web-1"], "");
    assert_eq!(text, "web-1.web revoked\n");
    // The end of the connection, or its reset; not the time limit.
    let mut rest = Vec::new();
    if let Err(error) = open.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert!(said(pair.way).is_none(), "no new connection is let through");
    until(|| {
        let status = pair.mesh.status();
        let web = status["sidecars"].as_array().unwrap().iter().find(|it| it["node"] == "web-1");
        web.is_none_or(|it| it["connected"] == false)
    });
    assert!(pair.mesh.expect(0, &["identity", "list"], "").contains("REVOKED"));
}
