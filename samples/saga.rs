//! The order flow: validate, pay with retries, send a mail; and when a step fails for good, undo what was done.
//!
//! cargo run -p mainspring-samples --example saga

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainspring::{
    ActivityContext, Failure, OrchestrationContext, Result, RetryPolicy, Scheduler, TaskError,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    item: String,
    cents: u64,
    mail: String,
}

async fn process_order(ctx: OrchestrationContext, order: Order) -> Result<String> {
    ctx.call(validate, order.clone()).await?;
    let policy = RetryPolicy::new(4, Duration::from_millis(50))
        .coefficient(2.0)
        .retry_if(|failure| !failure.is("CardDeclined"));
    let payment = ctx.call(pay, order.cents).retry(policy).await?;
    match finish(&ctx, &order).await {
        Ok(()) => Ok(format!("{} on its way", order.item)),
        Err(error) => {
            // What was done is undone, in reverse, and the order says why.
            ctx.call(refund, payment).await?;
            Ok(format!("refunded, since {error}"))
        }
    }
}

async fn finish(ctx: &OrchestrationContext, order: &Order) -> Result<(), TaskError> {
    ctx.call(reserve, order.item.clone()).await?;
    ctx.call(send_mail, order.mail.clone()).await
}

async fn validate(_: ActivityContext, order: Order) -> Result<()> {
    match order.cents {
        0 => Err(Failure::new("Invalid", "an order costs something").non_retriable()),
        _ => Ok(()),
    }
}

/// Stands for a payment provider that is busy at times. The key lets it recognise a repeat.
async fn pay(ctx: ActivityContext, cents: u64) -> Result<String> {
    static TRIES: AtomicU32 = AtomicU32::new(0);
    if TRIES.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
        println!("payment provider is busy");
        return Err(Failure::new("Busy", "try again"));
    }
    println!("charged {cents}");
    Ok(ctx.idempotency_key())
}

async fn reserve(_: ActivityContext, item: String) -> Result<()> {
    match item.as_str() {
        "unicorn" => Err(Failure::new("OutOfStock", format!("no {item} is left"))),
        _ => Ok(()),
    }
}

async fn send_mail(_: ActivityContext, mail: String) -> Result<()> {
    println!("mail to {mail}");
    Ok(())
}

async fn refund(_: ActivityContext, _payment: String) -> Result<()> {
    println!("refunded");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scheduler = Scheduler::open("sample-data/saga").await?;
    let worker = scheduler
        .worker()
        .orchestration(process_order)
        .activity(validate)
        .activity(pay)
        .activity(reserve)
        .activity(send_mail)
        .activity(refund)
        .start()?;
    for item in ["book", "unicorn"] {
        let order = Order {
            item: item.to_owned(),
            cents: 1_200,
            mail: "ada@example.com".to_owned(),
        };
        let order = scheduler.client().start(process_order, order).await?;
        println!("{item}: {}", order.result().await?);
    }
    worker.stop().await;
    Ok(scheduler.close().await?)
}
