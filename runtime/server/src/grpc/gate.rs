//! What every call passes on its way in and out: the token, the deadline, and what the transport could not decode.
//!
//! It knows paths and headers, no messages and no hubs. One value serves one connection and is cloned for each call, so it
//! is small; the busy service is found by a comparison rather than by the router.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mainspring_proto::server::TaskHubSidecarServiceServer;
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::service::Routes;
use tonic::{Code, Status};

use crate::config::INBOUND_BYTES_MAX;
use crate::grpc::bearer::Token;
use crate::grpc::listener::ConnectionId;
use crate::grpc::status::INTERNAL_PREFIX;
use crate::grpc::task_hub::TaskHub;
use crate::life::Life;

const TASK_HUB_PATH: &str = "/TaskHubSidecarService/";
/// Supervisors probe without a token.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";
/// Calls with which workers hand work items back, behind [`TASK_HUB_PATH`].
const ANSWERS: [&str; 2] = ["Complete", "Abandon"];

/// How much earlier than asked a deadline ends a call here. The transport watches the same deadline, but its word for it is
/// `CANCELLED`, which ends old Python workers for good (S-1.14); so ours has to come first, and a timer counts milliseconds.
const DEADLINE_MARGIN: Duration = Duration::from_millis(2);

/// All services behind one port.
#[derive(Clone)]
pub(crate) struct Gate {
    task_hub: TaskHubSidecarServiceServer<TaskHub>,
    /// The work stream, health and reflection.
    others: Routes,
    keeper: Arc<Keeper>,
}

struct Keeper {
    token: Option<Token>,
    life: Arc<Life>,
}

impl Gate {
    pub(crate) fn new(
        task_hub: TaskHubSidecarServiceServer<TaskHub>,
        others: Routes,
        token: Option<Token>,
        life: Arc<Life>,
    ) -> Self {
        Self {
            task_hub,
            others: others.prepare(),
            keeper: Arc::new(Keeper { token, life }),
        }
    }
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let path = request.uri().path();
        if let Some(token) = &self.keeper.token
            && !path.starts_with(HEALTH_PATH)
            && !token.is_in(request.headers())
        {
            return Answer::Refused(Some(Status::unauthenticated(
                "the call brings no valid bearer token",
            )));
        }
        let Some(method) = path.strip_prefix(TASK_HUB_PATH) else {
            return Answer::Plain(Box::pin(self.others.call(request)));
        };
        let is_answer = ANSWERS.iter().any(|prefix| method.starts_with(prefix));
        let connection = request.extensions().get::<ConnectionId>().copied();
        let deadline = match deadline(request.headers()) {
            Some(left) if left <= DEADLINE_MARGIN => return Answer::Refused(Some(too_late())),
            left => left.map(|left| Box::pin(tokio::time::sleep(left - DEADLINE_MARGIN))),
        };
        Answer::TaskHub(Watched {
            call: self.task_hub.call(request),
            deadline,
            worker: connection.filter(|_| is_answer),
            keeper: Arc::clone(&self.keeper),
        })
    }
}

/// The way out of the gate.
pub(crate) enum Answer {
    /// Refused before any service saw it.
    Refused(Option<Status>),
    /// A call of the busy service.
    TaskHub(Watched),
    /// A call of another one.
    Plain(BoxFuture<Response<Body>, Infallible>),
}

pub(crate) struct Watched {
    call: BoxFuture<Response<Body>, Infallible>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The connection, when the call hands a work item back.
    worker: Option<ConnectionId>,
    keeper: Arc<Keeper>,
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Refused(status) => {
                let status = status
                    .take()
                    .expect("a future is not polled after it is ready");
                Poll::Ready(Ok(status.into_http()))
            }
            Self::Plain(call) => call.as_mut().poll(context),
            Self::TaskHub(watched) => watched.poll(context),
        }
    }
}

impl Watched {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<Body>, Infallible>> {
        if let Poll::Ready(Ok(response)) = self.call.as_mut().poll(context) {
            return Poll::Ready(Ok(self.amend(response)));
        }
        let deadline = self.deadline.as_mut();
        if deadline.is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Ok(too_late().into_http()));
        }
        Poll::Pending
    }

    /// Gives requests that could not be decoded the code of any other malformed request (section 19). Only a call that
    /// failed before it had anything to send has its status among the headers.
    fn amend(&self, response: Response<Body>) -> Response<Body> {
        if !response.headers().contains_key("grpc-status") {
            return response;
        }
        let Some(status) = Status::from_header_map(response.headers()) else {
            return response;
        };
        match status.code() {
            // The services never say this; the transport does, of a message above the limit.
            Code::OutOfRange => {
                if let (Some(connection), Some(host)) = (self.worker, self.keeper.life.host_now()) {
                    tracing::warn!(
                        connection = connection.0,
                        "a worker's message is too large to be read; its streams are ended"
                    );
                    host.connection_failed(connection.0);
                }
                let message = format!(
                    "the message is larger than {INBOUND_BYTES_MAX} bytes, the limit of this server"
                );
                Status::invalid_argument(message).into_http()
            }
            Code::Internal if !status.message().starts_with(INTERNAL_PREFIX) => {
                let message = format!("the request cannot be decoded: {}", status.message());
                Status::invalid_argument(message).into_http()
            }
            _ => response,
        }
    }
}

fn too_late() -> Status {
    Status::deadline_exceeded("the call's deadline has passed")
}

/// How long the caller waits for an answer. A value that is no time-out is no deadline.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    headers.get("grpc-timeout").and_then(time_out)
}

/// Reads the protocol's time-out: one to eight digits and a unit.
fn time_out(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3_600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_of_every_unit_are_read_and_anything_else_is_none() {
        let read = |text: &'static str| time_out(&HeaderValue::from_static(text));
        for (text, expected) in [
            ("1n", Duration::from_nanos(1)),
            ("250u", Duration::from_micros(250)),
            ("30000m", Duration::from_secs(30)),
            ("30S", Duration::from_secs(30)),
            ("2M", Duration::from_secs(120)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
