//! A UDP server that keeps the datagrams it gets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A running server. It stops when dropped.
pub struct UdpServer {
    address: SocketAddr,
    kept: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl UdpServer {
    /// Starts one.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> Result<UdpServer> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let kept: Arc<Mutex<Vec<String>>> = Arc::default();
        let keeps = Arc::clone(&kept);
        let serving = tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                keeps.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        });
        Ok(UdpServer { address, kept, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
