//! The worker of a random history: orchestrators that wander from entity to entity, and entities that list who came.
//!
//! | operation | input | does |
//! |---|---|---|
//! | `add` | label | appends the label; answers its place |
//! | `late` | label, time | the same; not before the time |
//! | `relay` | label, entity | the same, and signals the entity |
//! | `spawn` | label, entity | the same, and starts an orchestration that goes to the entity |
//! | `get` | label | answers the number of labels and the last of them |
//! | `fail` | label | fails with the same words, and leaves nothing |

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainspring_proto::operation_action::OperationActionType;
use mainspring_proto::{
    EntityBatchResult, EntityRequest, OperationAction, OperationResult, OrchestratorAction,
    OrchestratorRequest, SendSignalAction, StartNewOrchestrationAction,
};
use mainspring_tests::entity::{Operation, batch_result, failure, operations, success};
use mainspring_tests::{Chance, Conduct, Run};

use crate::journal::{ENTITIES, Journal, Kind, echo, index, spawned_id};

/// Steps of each generation.
const STEPS: usize = 6;

/// Delay of a `late` signal.
const LATE: Duration = Duration::from_millis(40);

/// What the worker does, and the journal it keeps.
pub struct Wandering {
    journal: Arc<Journal>,
    chance: Mutex<Chance>,
}

impl Wandering {
    /// Keeps its notes in `journal`; `chance` decides how much of a batch is executed.
    pub fn new(journal: Arc<Journal>, chance: Chance) -> Self {
        Self {
            journal,
            chance: Mutex::new(chance),
        }
    }

    /// How many of `count` operations are executed in one go: mostly all, at times fewer or none (S-12.14).
    fn portion(&self, count: usize) -> usize {
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        match chance.below(60) {
            0 => 0,
            1..=12 => 1 + chance.below(count),
            _ => count,
        }
    }
}

impl Conduct for Wandering {
    fn decide(&self, request: &OrchestratorRequest) -> Vec<OrchestratorAction> {
        let mut run = Run::new(request);
        for id in run.doubled() {
            let rule = format!("S-12.15, one answer: {} got {id} twice", run.instance_id());
            self.journal.broken(rule);
        }
        let mut wanderer = Wanderer::new(&mut run, &self.journal);
        // An orchestrator that waits decides nothing more.
        let _ = match wanderer.run.name() {
            "wander" => wanderer.wander(),
            "spawned" => wanderer.spawned(),
            other => panic!("an orchestrator that nobody started: {other}"),
        };
        run.into_actions()
    }

    fn execute(&self, request: &EntityRequest) -> EntityBatchResult {
        let mut visit = Visit::new(request);
        let operations = operations(request);
        let portion = self.portion(operations.len());
        let results = operations
            .iter()
            .take(portion)
            .map(|operation| visit.execute(operation, &self.journal))
            .collect();
        let state = (visit.list.length > 0).then_some(visit.list.text.as_str());
        EntityBatchResult {
            actions: visit.actions,
            ..batch_result(request, results, state)
        }
    }
}

/// An entity's state: labels, separated by commas.
#[derive(Debug, Default)]
pub struct List {
    text: String,
    /// Number of labels.
    pub length: usize,
    /// The last of them, or nothing.
    pub last: String,
}

impl List {
    /// Reads a state.
    pub fn read(state: Option<&str>) -> Self {
        let Some(text) = state else {
            return Self::default();
        };
        Self {
            length: text.split(',').count(),
            last: text.rsplit(',').next().unwrap_or_default().to_owned(),
            text: text.to_owned(),
        }
    }

    /// The labels.
    pub fn labels(&self) -> Vec<String> {
        let labels = self.text.split(',').filter(|label| !label.is_empty());
        labels.map(str::to_owned).collect()
    }

    /// Appends a label and returns its place.
    fn push(&mut self, label: &str) -> usize {
        if self.length > 0 {
            self.text.push(',');
        }
        self.text.push_str(label);
        self.last = label.to_owned();
        self.length += 1;
        self.length - 1
    }
}

/// A batch at an entity.
struct Visit {
    list: List,
    actions: Vec<OperationAction>,
}

impl Visit {
    fn new(request: &EntityRequest) -> Self {
        Self {
            list: List::read(request.entity_state.as_deref()),
            actions: Vec::new(),
        }
    }

    fn execute(&mut self, operation: &Operation, journal: &Journal) -> OperationResult {
        let input = operation.input.clone().unwrap_or_default();
        let (label, extra) = input.split_once(' ').unwrap_or((&input, ""));
        match operation.name.as_str() {
            "get" => return success(&self.view()),
            "fail" => return failure("Refused", &self.view()),
            "late" if now_nanos() < extra.parse().unwrap_or(u128::MAX) => {
                journal.broken(format!("S-6.7, not before its time: {label}"));
            }
            "relay" => self.act(OperationActionType::SendSignal(SendSignalAction {
                instance_id: extra.to_owned(),
                name: "add".to_owned(),
                input: Some(echo(label)),
                ..Default::default()
            })),
            "spawn" => self.act(OperationActionType::StartNewOrchestration(
                StartNewOrchestrationAction {
                    instance_id: spawned_id(label),
                    name: "spawned".to_owned(),
                    input: Some(extra.to_owned()),
                    ..Default::default()
                },
            )),
            _ => {}
        }
        success(&self.list.push(label).to_string())
    }

    /// What a look at the entity shows.
    fn view(&self) -> String {
        format!("{} {}", self.list.length, self.list.last)
    }

    fn act(&mut self, kind: OperationActionType) {
        self.actions.push(OperationAction {
            id: self.actions.len() as i32,
            operation_action_type: Some(kind),
        });
    }
}

fn now_nanos() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos()
}

/// One episode of a wandering orchestrator.
struct Wanderer<'a> {
    run: &'a mut Run,
    journal: &'a Journal,
    chance: Chance,
    generation: usize,
    generations: usize,
    labels: usize,
    section: Option<String>,
}

/// A call under way: its request and its label.
type Call = (String, String);

impl<'a> Wanderer<'a> {
    /// The input is the seed and the number of the generation.
    fn new(run: &'a mut Run, journal: &'a Journal) -> Self {
        let (seed, generation) = run.input().split_once(' ').unwrap_or((run.input(), "0"));
        let seed: u64 = seed.parse().unwrap_or(0);
        let generation: usize = generation.parse().unwrap_or(0);
        Self {
            journal,
            chance: Chance::seeded(seed ^ ((generation as u64) << 40)),
            generation,
            generations: 1 + usize::from(seed.is_multiple_of(4)),
            labels: 0,
            section: None,
            run,
        }
    }

    fn wander(&mut self) -> Option<()> {
        for _ in 0..STEPS {
            let entity = self.chance.below(ENTITIES.len());
            match self.chance.below(12) {
                0 | 1 => self.visit(entity)?,
                2 => self.send(entity),
                3 => self.fan(entity)?,
                4 => self.look("get", entity)?,
                5 => self.look("fail", entity)?,
                6 | 7 => self.relay(entity)?,
                8 => self.delay(entity),
                9 => self.spawn(entity),
                _ => self.hold()?,
            }
        }
        if self.generation + 1 < self.generations {
            let seed = self.run.input().split(' ').next().unwrap_or("0");
            let input = format!("{seed} {}", self.generation + 1);
            self.run.continue_as_new(&input);
        } else {
            self.run.complete("\"done\"");
        }
        Some(())
    }

    fn spawned(&mut self) -> Option<()> {
        let entity = index(&self.run.input().to_lowercase());
        self.visit(entity)?;
        self.run.complete("\"done\"");
        Some(())
    }

    fn label(&mut self, entity: usize, kind: Kind) -> String {
        self.labels += 1;
        let label = format!(
            "{}.{}.{}",
            self.run.instance_id(),
            self.generation,
            self.labels
        );
        self.journal
            .ask(&label, entity, kind, self.section.as_deref());
        label
    }

    fn begin(&mut self, entity: usize) -> Call {
        let label = self.label(entity, Kind::Plain);
        (self.run.begin_call(ENTITIES[entity], "add", &label), label)
    }

    fn end(&mut self, (request_id, label): &Call) -> Option<()> {
        match self.run.outcome(request_id)?.map(|place| place.parse()) {
            Ok(Ok(place)) => self.journal.answer(label, place),
            other => self.journal.broken(format!("{label} ended with {other:?}")),
        }
        Some(())
    }

    fn visit(&mut self, entity: usize) -> Option<()> {
        let call = self.begin(entity);
        self.end(&call)
    }

    fn send(&mut self, entity: usize) {
        for _ in 0..2 {
            let label = self.label(entity, Kind::Plain);
            self.run.signal(ENTITIES[entity], "add", &label, None);
        }
    }

    /// Calls at once, to one entity and to all.
    fn fan(&mut self, entity: usize) -> Option<()> {
        let targets = (0..ENTITIES.len()).chain([entity, entity]);
        let calls: Vec<Call> = targets.map(|target| self.begin(target)).collect();
        calls.iter().try_for_each(|call| self.end(call))
    }

    fn look(&mut self, operation: &str, entity: usize) -> Option<()> {
        self.labels += 1;
        let label = format!(
            "{}.{}.{}",
            self.run.instance_id(),
            self.generation,
            self.labels
        );
        self.journal.look(&label, entity);
        let view = match self.run.call(ENTITIES[entity], operation, &label)? {
            Ok(view) if operation == "get" => view,
            Err(details) if operation == "fail" && details.error_type == "Refused" => {
                details.error_message
            }
            other => {
                self.journal
                    .broken(format!("{operation} {label} ended with {other:?}"));
                return Some(());
            }
        };
        if let Some((length, last)) = view.split_once(' ') {
            self.journal
                .saw(&label, length.parse().unwrap_or(usize::MAX), last);
        }
        Some(())
    }

    fn relay(&mut self, entity: usize) -> Option<()> {
        let target = self.chance.below(ENTITIES.len());
        let label = self.label(entity, Kind::Relay(target));
        let input = format!("{label} {}", ENTITIES[target]);
        let request_id = self.run.begin_call(ENTITIES[entity], "relay", &input);
        self.end(&(request_id, label))
    }

    fn delay(&mut self, entity: usize) {
        let label = self.label(entity, Kind::Delayed);
        let time = self.run.after(LATE);
        let nanos = time.seconds as u128 * 1_000_000_000 + time.nanos as u128;
        let input = format!("{label} {nanos}");
        self.run
            .signal(ENTITIES[entity], "late", &input, Some(LATE));
    }

    fn spawn(&mut self, entity: usize) {
        let target = self.chance.below(ENTITIES.len());
        let label = self.label(entity, Kind::Spawn(target));
        let input = format!("{label} {}", ENTITIES[target]);
        self.run.signal(ENTITIES[entity], "spawn", &input, None);
    }

    /// A critical section over one to three entities, named in any order and at times twice.
    fn hold(&mut self) -> Option<()> {
        let mut held: Vec<usize> = (0..ENTITIES.len()).collect();
        self.chance.shuffle(&mut held);
        held.truncate(1 + self.chance.below(3));
        let mut names: Vec<&str> = held.iter().map(|entity| ENTITIES[*entity]).collect();
        if self.chance.below(3) == 0 {
            names.push(names[0]);
        }
        let section = self.run.lock(&names)?;
        self.section = Some(section.id.clone());
        for entity in &held {
            self.visit(*entity)?;
        }
        // Java signals what it holds; such a signal comes before the unlock too (S-12.29, S-12.30).
        let calls: Vec<Call> = held.iter().map(|entity| self.begin(*entity)).collect();
        calls.iter().try_for_each(|call| self.end(call))?;
        if self.chance.below(2) == 0 {
            self.send(held[0]);
        }
        for entity in &held {
            self.run.unlock(&section, ENTITIES[*entity]);
        }
        self.section = None;
        Some(())
    }
}
