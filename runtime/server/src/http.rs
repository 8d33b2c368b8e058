//! Plain HTTP for supervisors and monitors: `GET /healthz` says whether the server is ready, `GET /metrics` how it fares.
//!
//! Nothing else is served here, and nobody is asked who they are: no answer holds a name or a payload of a user.

mod metrics;

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::grpc::listener;
use crate::life::{Life, Phase};
use crate::telemetry;

/// A probe sends its few bytes at once; who takes longer only holds a place.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);

/// Probes in hand at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// Answers until it is dropped. Holds the scheduler only while it is asked something.
pub(crate) async fn serve(listener: TcpListener, life: Weak<Life>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = listener::accept(&listener).await;
        let life = Weak::clone(&life);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = respond(&request, life.upgrade().as_deref());
                async move { Ok::<_, Infallible>(response) }
            });
            // A probe a connection: nothing is gained by keeping it.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WAIT_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a probe failed");
            }
            drop(place);
        });
    }
}

/// `life`: `None` when the server is gone already.
fn respond<B>(request: &Request<B>, life: Option<&Life>) -> Response<Full<Bytes>> {
    let is_read = matches!(request.method(), &Method::GET | &Method::HEAD);
    let mut response = Response::new(Full::default());
    *response.status_mut() = match request.uri().path() {
        "/healthz" | "/metrics" if !is_read => StatusCode::METHOD_NOT_ALLOWED,
        // 204 while calls are answered; not while the store opens, nor while the server drains.
        "/healthz" => match life.map(|life| *life.phase().borrow()) {
            Some(Phase::Serving) => StatusCode::NO_CONTENT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        },
        "/metrics" => match life.and_then(Life::host_now) {
            Some(host) => {
                let text = metrics::text(&telemetry::metrics::families(host.metrics()));
                *response.body_mut() = Full::from(text);
                let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                StatusCode::OK
            }
            None => StatusCode::SERVICE_UNAVAILABLE,
        },
        _ => StatusCode::NOT_FOUND,
    };
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_health_and_metrics_are_served_and_only_to_be_read() {
        // Method: a server whose store is still opening.
        let life = Life::new();
        for (method, path, expected) in [
            (Method::GET, "/healthz", 503),
            (Method::HEAD, "/healthz?x=1", 503),
            (Method::POST, "/healthz", 405),
            (Method::GET, "/metrics", 503),
            (Method::PUT, "/metrics", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/healthz/x", 404),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap();
            assert_eq!(respond(&request, Some(&life)).status(), expected);
        }
    }
}
