//! Accepts connections and numbers them, so that what is known of a connection can be told to the scheduler.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

use crate::life::Life;

/// Pause after a failed accept. Out of file descriptors, the next attempt would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Number of a connection; unique while the process lives. Every request carries it in its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// Longest that a peer may stay silent after it connected.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// An accepted connection with its number.
pub(crate) struct Connection {
    stream: TcpStream,
    id: ConnectionId,
    /// Until the first byte came: ends when the peer is to be let go. The transport would wait for it for ever, even when
    /// the server stops.
    silence: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// The connections of `listener`, for as long as the stream is polled. Never ends and never fails.
pub(crate) fn incoming(
    listener: TcpListener,
    life: Arc<Life>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    stream::unfold((listener, life, 1), |(listener, life, next)| async move {
        let stream = accept(&listener).await;
        let connection = Connection {
            stream,
            id: ConnectionId(next),
            silence: Some(Box::pin(silence(Arc::clone(&life)))),
        };
        Some((Ok(connection), (listener, life, next + 1)))
    })
}

async fn silence(life: Arc<Life>) {
    tokio::select! {
        () = tokio::time::sleep(SILENCE_MAX) => {}
        () = life.drained() => {}
    }
}

/// The next connection, however many attempts fail. Small messages are sent at once rather than gathered.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY cannot be set");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionId;

    fn connect_info(&self) -> ConnectionId {
        self.id
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.silence.is_none() {
            return read;
        }
        if buffer.filled().len() > before {
            self.silence = None;
            return read;
        }
        let silence = self.silence.as_mut();
        if read.is_pending()
            && silence.is_some_and(|silence| silence.as_mut().poll(context).is_ready())
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
