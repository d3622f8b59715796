//! What HTTP alone costs: the product's listener and its way of reading a body, admission and
//! limits included, with one route `POST /noop` that does nothing with it. Ingest is compared
//! with this: `cargo run --release -p server --example noop [ADDRESS]`.
//!
//! Prints its address; serves until it is interrupted.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use model::{Stop, config::Config};
use server::{ingest::Bodies, listener, metrics::Metrics, router};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned()).parse()?;
    let (mut config, metrics) = (Config::defaults(), Arc::new(Metrics::new()));
    config.server.listen = address;
    let bodies = Arc::new(Bodies::new(&config, &metrics));
    let routes = Router::new().route("/noop", post(read_only)).with_state(bodies);
    let port = listener::bind(&config).await?;
    println!("listening on http://{}", port.local_addr()?);
    let stop = Stop::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            // Whether it was heard or cannot be heard: this ends.
            let _ = tokio::signal::ctrl_c().await;
            stop.cancel();
        }
    });
    listener::serve(port, router::observed(routes, metrics), &config.server, stop).await
}

async fn read_only(State(bodies): State<Arc<Bodies>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    match bodies.read(&head.headers, body).await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}
