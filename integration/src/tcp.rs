//! A TCP upstream: greets with its name, then gives every byte back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::address;

/// A running TCP upstream. It stops when dropped.
pub struct TcpUpstream {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl TcpUpstream {
    /// Starts it on a loopback address of its own.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(name: &str) -> Result<TcpUpstream> {
        let listener = TcpListener::bind(address::free()?).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&connections);
        let greeting = format!("{name}\n");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(greet_and_echo(stream, greeting.clone()));
            }
        });
        Ok(TcpUpstream { address, connections, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for TcpUpstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn greet_and_echo(mut stream: TcpStream, greeting: String) -> std::io::Result<()> {
    stream.write_all(greeting.as_bytes()).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(buffer.get(..read).unwrap_or_default()).await?;
    }
}
