//! gRPC calls straight on HTTP/2, with nothing between a message and its frames.
//!
//! A full client brings a queue, several layers and boxed futures to every call. Their cost would hide the server that
//! is to be measured: all processes share one machine. What passes over the wire is the same.

use std::future::poll_fn;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::net::TcpStream;

const SERVICE: &str = "TaskHubSidecarService";

/// Windows that no answer of a workload fills, so that nothing waits for flow control.
const CONNECTION_WINDOW: u32 = 8 << 20;
const STREAM_WINDOW: u32 = 4 << 20;

/// In front of each message: a flag that says whether it is compressed, and its length in four bytes.
const PREFIX_BYTES: usize = 5;

/// One connection. A clone shares it.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    address: String,
}

/// The head of a call, made once and copied for each.
#[derive(Clone)]
pub struct Method {
    head: Request<()>,
}

impl Method {
    /// The same method, with a limit in whole seconds that the server keeps.
    pub fn with_timeout(mut self, limit: Duration) -> anyhow::Result<Self> {
        let timeout = format!("{}S", limit.as_secs()).parse()?;
        self.head.headers_mut().insert("grpc-timeout", timeout);
        Ok(self)
    }
}

impl Connection {
    /// Connects to `HOST:PORT`.
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address)
            .await
            .with_context(|| format!("no server answers at {address}"))?;
        socket.set_nodelay(true)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_window_size(STREAM_WINDOW)
            .handshake(socket)
            .await?;
        // It ends when the peer or the last clone goes; calls that were under way learn why.
        tokio::spawn(connection);
        Ok(Self {
            requests,
            address: address.to_owned(),
        })
    }

    /// A method of the service, by name.
    pub fn method(&self, name: &str) -> anyhow::Result<Method> {
        let head = Request::post(format!("http://{}/{SERVICE}/{name}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "mainspring-bench")
            .body(())?;
        Ok(Method { head })
    }

    /// Sends a call. Its answer is awaited apart, so that a worker can go on meanwhile.
    pub async fn send(
        &mut self,
        method: &Method,
        message: &impl Message,
    ) -> anyhow::Result<Answer> {
        poll_fn(|context| self.requests.poll_ready(context)).await?;
        let (response, mut body) = self.requests.send_request(method.head.clone(), false)?;
        body.send_data(framed(message)?, true)?;
        Ok(Answer { response })
    }

    /// Sends a call and returns its only answer.
    pub async fn call<M: Message + Default>(
        &mut self,
        method: &Method,
        message: &impl Message,
    ) -> anyhow::Result<M> {
        self.send(method, message).await?.message().await
    }
}

/// The answer to a call, once it is there.
pub struct Answer {
    response: ResponseFuture,
}

impl Answer {
    /// The message of a unary call that succeeded.
    pub async fn message<M: Message + Default>(self) -> anyhow::Result<M> {
        let mut messages = self.messages().await?;
        let message = messages
            .next()
            .await?
            .context("an answer without message")?;
        ensure!(
            messages.next::<M>().await?.is_none(),
            "an answer with two messages"
        );
        Ok(message)
    }

    /// The messages of a call that answers with a stream.
    pub async fn messages(self) -> anyhow::Result<Messages> {
        let (head, body) = self.response.await?.into_parts();
        ensure!(head.status.is_success(), "http status {}", head.status);
        // A call that fails at once has no trailers.
        if head.headers.contains_key("grpc-status") {
            check_status(&head.headers)?;
        }
        Ok(Messages {
            body,
            received: BytesMut::new(),
        })
    }
}

/// Messages of an answer, as they come.
pub struct Messages {
    body: RecvStream,
    received: BytesMut,
}

impl Messages {
    /// The next message; `None` after the last, if the call succeeded.
    pub async fn next<M: Message + Default>(&mut self) -> anyhow::Result<Option<M>> {
        loop {
            if let Some(bytes) = first_message(&self.received)? {
                let message = M::decode(bytes)?;
                self.received.advance(PREFIX_BYTES + bytes.len());
                return Ok(Some(message));
            }
            let Some(data) = self.body.data().await else {
                break;
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.received.extend_from_slice(&data);
        }
        ensure!(self.received.is_empty(), "the stream ends inside a message");
        let trailers = self.body.trailers().await?.context("no trailers")?;
        check_status(&trailers)?;
        Ok(None)
    }
}

fn framed(message: &impl Message) -> anyhow::Result<Bytes> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length)?);
    message.encode(&mut frame)?;
    Ok(frame.freeze())
}

/// The first message, without its prefix, if all of it is there.
fn first_message(received: &[u8]) -> anyhow::Result<Option<&[u8]>> {
    let Some((mut prefix, rest)) = received.split_at_checked(PREFIX_BYTES) else {
        return Ok(None);
    };
    ensure!(prefix.get_u8() == 0, "a compressed message");
    Ok(rest.get(..prefix.get_u32() as usize))
}

fn check_status(headers: &HeaderMap) -> anyhow::Result<()> {
    let text = |name| {
        headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap_or("?"))
    };
    match text("grpc-status") {
        "0" => Ok(()),
        code => bail!("grpc status {code}: {}", text("grpc-message")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mainspring_proto::CreateInstanceResponse;

    use super::*;

    #[test]
    fn messages_are_found_wherever_the_transport_cut_the_stream() {
        let message = |id: &str| CreateInstanceResponse {
            instance_id: id.to_owned(),
        };
        let sent = [message("first"), message(""), message("third")];
        let stream: Vec<u8> = sent
            .iter()
            .flat_map(|message| framed(message).unwrap())
            .collect();
        for cut in 0..=stream.len() {
            let mut received = BytesMut::new();
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                received.extend_from_slice(part);
                while let Some(bytes) = first_message(&received).unwrap() {
                    found.push(CreateInstanceResponse::decode(bytes).unwrap());
                    received.advance(PREFIX_BYTES + bytes.len());
                }
            }
            assert_eq!(found, sent);
            assert!(received.is_empty());
        }
    }

    #[test]
    fn a_status_other_than_ok_is_an_error_that_says_what_the_server_said() {
        let mut headers = HeaderMap::new();
        assert!(check_status(&headers).is_err());
        headers.insert("grpc-status", "0".parse().unwrap());
        assert!(check_status(&headers).is_ok());
        headers.insert("grpc-status", "14".parse().unwrap());
        headers.insert("grpc-message", "draining".parse().unwrap());
        let error = check_status(&headers).unwrap_err();
        assert_eq!(error.to_string(), "grpc status 14: draining");
    }
}
