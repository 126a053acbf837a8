//! A TCP upstream: greets with its name, then gives every byte back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::address;

/// A running TCP upstream. It stops when dropped.
pub struct TcpUpstream {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    sources: Arc<Mutex<Vec<SocketAddr>>>,
    accepting: JoinHandle<()>,
}

impl TcpUpstream {
    /// Starts it on a loopback address of its own.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(name: &str) -> Result<TcpUpstream> {
        TcpUpstream::start_at(name, address::free()?).await
    }

    /// Starts it at this address.
    ///
    /// # Errors
    /// It cannot be bound.
    pub async fn start_at(name: &str, address: SocketAddr) -> Result<TcpUpstream> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&connections);
        let sources = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sources);
        let greeting = format!("{name}\n");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, source)) = listener.accept().await {
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(source);
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(greet_and_echo(stream, greeting.clone()));
            }
        });
        Ok(TcpUpstream { address, connections, sources, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Where they came from.
    pub fn sources(&self) -> Vec<SocketAddr> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
