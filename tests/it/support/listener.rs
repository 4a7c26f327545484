//! A server of a test: a port of its own, and a task for each connection. It ends with this.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::runtime;

pub struct Listener {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listener {
    pub fn start<S: Future<Output: Send> + Send + 'static>(serve: impl Fn(TcpStream) -> S + Send + 'static) -> Self {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("its address");
        let task = runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = serve(stream);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Self { address, task }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}
