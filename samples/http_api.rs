//! An HTTP API for work that takes long: POST starts it and answers at once, GET tells how far it is.
//!
//! cargo run -p mainspring-samples --example http_api
//! curl -X POST localhost:8088/reports -H 'content-type: application/json' -d '"sales"'
//! curl localhost:8088/reports/ID

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use mainspring::{ActivityContext, Client, OrchestrationContext, Result, Scheduler};
use serde::Serialize;

async fn report(ctx: OrchestrationContext, topic: String) -> Result<String> {
    ctx.set_custom_status("collecting")?;
    let rows = ctx.call(collect, topic.clone()).await?;
    ctx.set_custom_status("writing")?;
    ctx.timer(Duration::from_millis(500)).await;
    Ok(format!("{topic}: {rows} rows"))
}

async fn collect(_: ActivityContext, topic: String) -> Result<usize> {
    Ok(topic.len() * 100)
}

#[derive(Serialize)]
struct Progress {
    id: String,
    status: String,
    step: Option<String>,
    report: Option<String>,
}

async fn start(State(client): State<Client>, Json(topic): Json<String>) -> Response {
    match client.start(report, topic).await {
        Ok(report) => {
            let location = format!("/reports/{}", report.id());
            (StatusCode::ACCEPTED, [("location", location)]).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn look(State(client): State<Client>, Path(id): Path<String>) -> Response {
    match client.instance::<String>(&id).state().await {
        Ok(Some(state)) => Json(Progress {
            step: state.custom_status().unwrap_or_default(),
            report: state.output().unwrap_or_default(),
            status: state.status.to_string(),
            id,
        })
        .into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/http_api").await?;
    let _worker = scheduler
        .worker()
        .orchestration(report)
        .activity(collect)
        .start()?;
    let api = Router::new()
        .route("/reports", post(start))
        .route("/reports/{id}", get(look))
        .with_state(scheduler.client());
    let address = std::env::var("SAMPLE_ADDRESS").unwrap_or("127.0.0.1:8088".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}/reports", listener.local_addr()?);
    Ok(axum::serve(listener, api).await?)
}
