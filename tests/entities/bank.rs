//! Money that is moved under locks adds up at every moment at which somebody holds all accounts, whatever crashes.

use std::sync::Arc;
use std::time::Duration;

use mainspring_proto::{
    CreateInstanceRequest, EntityBatchResult, EntityRequest, OperationResult,
    OrchestrationIdReusePolicy, OrchestrationStatus, OrchestratorAction, OrchestratorRequest,
    SignalEntityRequest,
};
use mainspring_tests::entity::{Operation, batch_result, failure, guid, operations, success};
use mainspring_tests::{Chance, Client, Conduct, Crew, Peer, Run, Scheduler};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tonic::Code;

use crate::hands::store_is_sound;
use crate::insistent::Insistent;

const SEED: u64 = 7;

const ROUNDS: usize = 20;

/// Transfers in each round; one audit is added.
const TRANSFERS: usize = 6;

const ACCOUNTS: [&str; 5] = [
    "@account@anna",
    "@account@bob",
    "@account@",
    "@account@Anna",
    "@account-2@anna",
];

/// What each account holds in the beginning.
const DEPOSIT: i64 = 50;

const TOTAL: i64 = DEPOSIT * ACCOUNTS.len() as i64;

/// Longest time between the last restart and the end of everything.
const FINISH_LIMIT: Duration = Duration::from_secs(60);

/// Tellers and auditors, and accounts whose state is their balance.
struct Bank;

impl Conduct for Bank {
    fn decide(&self, request: &OrchestratorRequest) -> Vec<OrchestratorAction> {
        let mut run = Run::new(request);
        assert_eq!(run.doubled(), [""; 0], "S-12.15, one answer");
        let result = match run.name() {
            "transfer" => transfer(&mut run),
            _ => audit(&mut run),
        };
        if let Some(result) = result {
            run.complete(&result);
        }
        run.into_actions()
    }

    fn execute(&self, request: &EntityRequest) -> EntityBatchResult {
        let state = request.entity_state.as_deref();
        let mut balance: i64 = state.map_or(0, |text| text.parse().unwrap());
        let operations = operations(request);
        // Half of what is there: the rest is asked for again (S-12.14).
        let portion = operations.len().div_ceil(2);
        let results = operations
            .iter()
            .take(portion)
            .map(|operation| book(&mut balance, operation))
            .collect();
        batch_result(request, results, Some(&balance.to_string()))
    }
}

fn book(balance: &mut i64, operation: &Operation) -> OperationResult {
    let input = operation.input.as_deref().unwrap_or_default();
    let amount: i64 = input.parse().unwrap_or(0);
    match operation.name.as_str() {
        "deposit" => *balance += amount,
        "withdraw" if *balance < amount => return failure("Insufficient", "not so much is there"),
        "withdraw" => *balance -= amount,
        _ => {}
    }
    success(&balance.to_string())
}

/// The input is the two accounts and the amount.
fn transfer(run: &mut Run) -> Option<String> {
    let input = run.input().to_owned();
    let mut parts = input.split(' ');
    let (from, to) = (parts.next()?, parts.next()?);
    let amount = parts.next()?;
    let section = run.lock(&[from, to])?;
    let is_taken = run.call(from, "withdraw", amount)?.is_ok();
    if is_taken && amount.len() == 1 {
        // A signal to what is held comes before the unlock, too (S-12.30).
        run.signal(to, "deposit", amount, None);
    } else if is_taken {
        run.call(to, "deposit", amount)?.ok()?;
    }
    run.unlock(&section, to);
    run.unlock(&section, from);
    Some(if is_taken { "moved" } else { "refused" }.to_owned())
}

fn audit(run: &mut Run) -> Option<String> {
    let section = run.lock(&ACCOUNTS)?;
    let calls = ACCOUNTS.map(|account| run.begin_call(account, "balance", ""));
    let mut total = 0;
    for call in &calls {
        let balance: i64 = run.outcome(call)?.ok()?.parse().ok()?;
        total += balance;
    }
    for account in ACCOUNTS {
        run.unlock(&section, account);
    }
    Some(total.to_string())
}

/// Starts a round's transfers and its audit.
async fn load(address: String, round: usize, mut chance: Chance, started: UnboundedSender<String>) {
    let mut client = Insistent::new(&address);
    for number in 0..=TRANSFERS {
        let mut ends = ACCOUNTS;
        chance.shuffle(&mut ends);
        let amount = 1 + chance.below(40);
        let name = if number == TRANSFERS / 2 {
            "audit"
        } else {
            "transfer"
        };
        let request = CreateInstanceRequest {
            name: name.to_owned(),
            instance_id: format!("{name}-{round}-{number}"),
            input: Some(format!("{} {} {amount}", ends[0], ends[1])),
            orchestration_id_reuse_policy: Some(OrchestrationIdReusePolicy::default()),
            ..Default::default()
        };
        let start = |mut client: Client| {
            let request = request.clone();
            async move { client.start_instance(request).await }
        };
        match client.ask(start).await {
            Err(status) if status.code() != Code::AlreadyExists => panic!("{status}"),
            _ => {}
        }
        started.send(request.instance_id).unwrap();
    }
}

/// Pays in what each account begins with.
async fn open_accounts(address: &str) {
    let mut client = Insistent::new(address);
    for (number, account) in ACCOUNTS.iter().enumerate() {
        let request = SignalEntityRequest {
            instance_id: (*account).to_owned(),
            name: "deposit".to_owned(),
            input: Some(DEPOSIT.to_string()),
            request_id: guid(number as u128),
            ..Default::default()
        };
        let signal = |mut client: Client| {
            let request = request.clone();
            async move { client.signal_entity(request).await }
        };
        // Twice: the second counts for nothing (S-12.37).
        client.ask(signal).await.unwrap();
        client.ask(signal).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_of_all_accounts_always_sees_the_same_total() {
    let mut chance = Chance::new(SEED);
    let mut scheduler = Scheduler::start(&["--lease-grace", "300ms"]);
    open_accounts(scheduler.address()).await;
    let crew = Crew::start(
        scheduler.address(),
        Arc::new(Bank),
        Chance::seeded(chance.number()),
    );
    let (send, mut started) = unbounded_channel();
    let mut loads = Vec::new();
    for round in 0..ROUNDS {
        let seed = chance.number();
        let address = scheduler.address().to_owned();
        loads.push(tokio::spawn(load(
            address,
            round,
            Chance::seeded(seed),
            send.clone(),
        )));
        tokio::time::sleep(Duration::from_millis(50 + chance.below(200) as u64)).await;
        if chance.below(4) == 0 {
            crew.sever();
        }
        crew.check();
        tokio::task::block_in_place(|| {
            scheduler.kill();
            scheduler.restart();
        });
    }
    for load in loads {
        load.await.unwrap();
    }
    drop(send);

    let peer = Peer::connect(&scheduler).await;
    let deadline = Instant::now() + FINISH_LIMIT;
    let (mut moved, mut audits) = (0, 0);
    while let Some(id) = started.recv().await {
        while peer.get(&id).await.orchestration_status() != OrchestrationStatus::Completed {
            crew.check();
            assert!(
                Instant::now() < deadline,
                "{id} is not done: {:#?}",
                peer.history(&id).await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let output = peer.get(&id).await.output.unwrap_or_default();
        if id.starts_with("audit") {
            audits += 1;
            assert_eq!(output, TOTAL.to_string(), "{id}");
        } else {
            moved += usize::from(output == "moved");
        }
    }
    assert_eq!(audits, ROUNDS);
    assert!(moved > ROUNDS, "{moved} transfers say nothing");

    let mut total = 0;
    for account in ACCOUNTS {
        let found = peer.find_entity(account).await.unwrap();
        let balance: i64 = found.serialized_state.unwrap().parse().unwrap();
        assert!(balance >= 0, "{account} holds {balance}");
        assert_eq!(found.locked_by, None, "{account}");
        total += balance;
    }
    assert_eq!(total, TOTAL);
    println!("{moved} transfers and {audits} audits survived {ROUNDS} crashes");
    drop(crew);
    store_is_sound(scheduler).await;
}
