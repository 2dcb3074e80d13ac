//! A server that can be killed with all its connections.

use std::net::TcpListener;
use std::time::Duration;

use proto::transport::channel::server_builder;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::{Response, Status};

/// What a handler returns.
pub type Reply<T> = Result<Response<T>, Status>;

pub struct Server {
    pub address: String,
    runtime: Option<Runtime>,
}

impl Server {
    /// Serves at an address (port 0: any) in a runtime of its own.
    pub fn start(address: &str, routes: Routes) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = bind(address);
        let address = listener.local_addr().unwrap().to_string();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let server = server_builder().add_routes(routes);
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address,
            runtime: Some(runtime),
        }
    }
}

/// The port of a server just killed may need a moment.
fn bind(address: &str) -> TcpListener {
    for _ in 0..200 {
        if let Ok(listener) = TcpListener::bind(address) {
            listener.set_nonblocking(true).unwrap();
            return listener;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{address} stays in use");
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
