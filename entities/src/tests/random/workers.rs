//! Workers that answer as they should, in part, in vain, or too much; and the model, which takes what they did.

use std::collections::VecDeque;

use mainspring_core::entity::{BatchResult, Operation, OperationOutcome, Sender};

use super::super::script::*;
use super::super::world::Counter;
use super::{ENTITIES, Run};

impl Run {
    pub(super) fn is_out(&self, id: &str) -> bool {
        let node = self.world.nodes.get(&entity(id));
        node.is_some_and(|n| n.lease.is_some())
    }

    pub(super) fn lease(&mut self, id: &'static str) {
        if !self.is_out(id)
            && let Some(operations) = self.world.lease(id)
        {
            self.out.insert(id, operations);
        }
    }

    pub(super) fn crash(&mut self, id: &'static str) {
        self.world.crash(id);
        self.out.remove(id);
    }

    pub(super) fn answer(&mut self, id: &'static str) {
        let Some(operations) = self.out.remove(id) else {
            return;
        };
        match self.dice.below(12) {
            0 => self.world.lose_lease(id),
            1 => assert!(!self.world.answer(id, BatchResult::default())),
            2 => self.answer_in_vain(id, operations),
            3 => self.answer_too_much(id, operations),
            kind => {
                let all = operations.len();
                let count = if kind < 6 {
                    1 + self.dice.below(all)
                } else {
                    all
                };
                self.answer_first(id, &operations[..count]);
            }
        }
    }

    /// What a worker makes of the first operations; the state is what it was handed.
    fn work(&self, id: &str, operations: &[Operation]) -> BatchResult {
        let mut state = self.world.nodes[&entity(id)]
            .live
            .as_ref()
            .unwrap()
            .state
            .clone();
        let mut result = BatchResult::default();
        for operation in operations {
            let outcome = match operation.name.as_str() {
                "boom" => OperationOutcome::Failure(failure("Boom")),
                "clear" => {
                    state = None;
                    success("cleared")
                }
                name => {
                    let mut labels = state.take().unwrap_or_default();
                    labels.push_str(&operation.request_id);
                    labels.push(',');
                    if name == "pass" {
                        let next = ENTITIES[labels.len() % ENTITIES.len()];
                        result.actions.push(sends(next, "push"));
                    }
                    let outcome = success(&labels.matches(',').count().to_string());
                    state = Some(labels);
                    outcome
                }
            };
            result.outcomes.push(outcome);
        }
        result.state = state;
        result
    }

    pub(super) fn answer_first(&mut self, id: &'static str, operations: &[Operation]) {
        let mut result = self.work(id, operations);
        let length = result.state.as_ref().map_or(0, String::len);
        if length > 900 {
            // It would soon be too large: begin anew.
            result.state = Some("0,".to_owned());
        }
        let kept = result.state.clone();
        let actions = result.actions.len();
        for operation in operations {
            self.apply(id, operation);
        }
        let model = self.model.entry(id).or_default();
        if length > 900 {
            *model = vec!["0".to_owned()];
        }
        let expected: String = model.iter().map(|label| format!("{label},")).collect();
        assert_eq!(kept.unwrap_or_default(), expected, "'{id}'");
        self.sent += actions;
        assert!(self.world.answer(id, result));
    }

    /// The worker's answer is lost before it is stored, or the process with it.
    fn answer_in_vain(&mut self, id: &'static str, operations: Vec<Operation>) {
        let result = self.work(id, &operations);
        let batch = self.world.nodes[&entity(id)].lease.clone().unwrap();
        let (now, limits) = (self.world.now, self.world.limits.clone());
        let mut ids = Counter::default();
        self.world
            .live(id)
            .complete(&batch, result, &limits, now, &mut ids);
        self.crash(id);
    }

    /// S-14.4: the last result is too large.
    fn answer_too_much(&mut self, id: &'static str, operations: Vec<Operation>) {
        let mut result = self.work(id, &operations);
        *result.outcomes.last_mut().unwrap() = success(&"x".repeat(1_001));
        match &operations[..] {
            [operation] => {
                self.note_applied(id, operation, "failed");
                assert!(self.world.answer(id, result));
            }
            _ => assert!(!self.world.answer(id, result)),
        }
    }

    /// The model takes one operation.
    fn apply(&mut self, id: &'static str, operation: &Operation) {
        let model = self.model.entry(id).or_default();
        let outcome = match operation.name.as_str() {
            "boom" => "failed".to_owned(),
            "clear" => {
                model.clear();
                "cleared".to_owned()
            }
            _ => {
                model.push(operation.request_id.clone());
                model.len().to_string()
            }
        };
        self.note_applied(id, operation, &outcome);
    }

    fn note_applied(&mut self, id: &'static str, operation: &Operation, outcome: &str) {
        let request_id = operation.request_id.clone();
        let sender = operation.sender.generation();
        if let Some(holder) = self.held.get(&entity(id)) {
            assert_eq!(sender, Some(holder), "S-12.29: '{id}' {request_id}");
        }
        let from = sender.map_or("client", |g| g.instance.as_str());
        if let Some(due) = self.later.get(&request_id) {
            assert!(self.world.now >= *due, "S-6.7: {request_id}");
        } else if operation.sender != Sender::Entity {
            let key = (from.to_owned(), id.to_owned());
            let first = self.pending.get_mut(&key).and_then(VecDeque::pop_front);
            assert_eq!(first.as_ref(), Some(&request_id), "S-12.23: {key:?}");
        }
        if operation.is_call() {
            let answer = self.answers.get_mut(&request_id).unwrap();
            *answer = Some(outcome.to_owned());
        }
        assert!(
            self.applied.insert(request_id.clone()),
            "{request_id} twice"
        );
    }
}
