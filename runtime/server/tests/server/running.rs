//! A running server on free ports, with a data folder of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use mainspring_proto::client::TaskHubSidecarServiceClient;
use mainspring_server::{Config, Error, Server};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

pub type Client = TaskHubSidecarServiceClient<Channel>;

pub struct Running {
    pub grpc: SocketAddr,
    pub health: SocketAddr,
    pub folder: Arc<TempDir>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), Error>>,
}

/// Settings for a server on free ports with its data in `folder`.
pub fn config(folder: &Path) -> Config {
    Config {
        data_dir: folder.join("data"),
        grpc_addr: "127.0.0.1:0".parse().unwrap(),
        health_addr: "127.0.0.1:0".parse().unwrap(),
        ..Config::default()
    }
}

impl Running {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(Arc::new(TempDir::new().unwrap()), change).await
    }

    pub async fn on(folder: Arc<TempDir>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(folder.path());
        change(&mut config);
        let server = Server::bind(config).await.unwrap();
        let (grpc, health) = (server.grpc_addr(), server.health_addr());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));
        Self {
            grpc,
            health,
            folder,
            stop,
            serving,
        }
    }

    /// One new connection.
    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.grpc))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub async fn client(&self) -> Client {
        client(self.channel().await)
    }

    /// Calls `method` of the service with these bytes as its message, and with nothing of a client's own between: neither
    /// its checks nor its deadlines.
    pub async fn raw(&self, method: &str, message: &[u8], time_out: Option<&str>) -> Status {
        let stream = TcpStream::connect(self.grpc).await.unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        let mut request = hyper::Request::post(format!(
            "http://{}/TaskHubSidecarService/{method}",
            self.grpc
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
        if let Some(time_out) = time_out {
            request = request.header("grpc-timeout", time_out);
        }
        let response = sender
            .send_request(request.body(Full::new(Bytes::from(frame))).unwrap())
            .await
            .unwrap();
        let in_headers = Status::from_header_map(response.headers());
        let trailers = response
            .into_body()
            .collect()
            .await
            .unwrap()
            .trailers()
            .cloned();
        driver.abort();
        in_headers
            .or_else(|| Status::from_header_map(&trailers?))
            .expect("every call ends with a status")
    }

    /// Asks the server to stop, and waits until it has.
    pub async fn stop(self) -> Result<(), Error> {
        let _ = self.stop.send(());
        self.serving.await.unwrap()
    }
}

pub fn client(channel: Channel) -> Client {
    TaskHubSidecarServiceClient::new(channel).max_decoding_message_size(usize::MAX)
}
