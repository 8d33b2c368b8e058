//! `GET /healthz`: whether the server is ready, for supervisors and load balancers that speak no gRPC.
//!
//! 204 while calls are answered; 503 while the store opens and while the server drains. Nothing else is served here, and
//! nobody is asked who they are.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::grpc::listener;
use crate::life::Phase;

const PATH: &str = "/healthz";

/// A probe sends its few bytes at once; who takes longer only holds a place.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);

/// Probes in hand at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// Answers probes until it is dropped.
pub(crate) async fn serve(listener: TcpListener, phase: watch::Receiver<Phase>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = listener::accept(&listener).await;
        let phase = phase.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = respond(&request, *phase.borrow() == Phase::Serving);
                async move { Ok::<_, Infallible>(response) }
            });
            // A probe a connection: nothing is gained by keeping it.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WAIT_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a health probe failed");
            }
            drop(place);
        });
    }
}

fn respond<B>(request: &Request<B>, is_ready: bool) -> Response<Empty<Bytes>> {
    let status = match (request.uri().path(), request.method()) {
        (PATH, &Method::GET | &Method::HEAD) if is_ready => StatusCode::NO_CONTENT,
        (PATH, &Method::GET | &Method::HEAD) => StatusCode::SERVICE_UNAVAILABLE,
        (PATH, _) => StatusCode::METHOD_NOT_ALLOWED,
        _ => StatusCode::NOT_FOUND,
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_the_health_path_is_served() {
        for (method, path, is_ready, expected) in [
            (Method::GET, "/healthz", true, 204),
            (Method::HEAD, "/healthz", true, 204),
            (Method::GET, "/healthz", false, 503),
            (Method::HEAD, "/healthz?x=1", false, 503),
            (Method::POST, "/healthz", true, 405),
            (Method::GET, "/", true, 404),
            (Method::GET, "/healthz/x", true, 404),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap();
            assert_eq!(respond(&request, is_ready).status(), expected);
        }
    }
}
