// Suspend, resume, terminate, rewind and restart, as an operator calls them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import { Scheduler, assertStatus, failsWith, gate, newId, output } from "./scheduler.mjs";

const { whenAll } = durabletask;
const scheduler = new Scheduler();

before(() => scheduler.start());
after(() => scheduler.stop());

const collector = scheduler.orchestrator("collector", async function* (context, count) {
  const collected = [];
  while (collected.length < count) {
    collected.push(yield context.waitForExternalEvent("item"));
  }
  return collected;
});

const hello = scheduler.orchestrator("hello", async (_context, name) => `hello ${name}`);

async function statusOf(id) {
  return scheduler.client.getOrchestrationState(id);
}

/** Starts a collector and waits until it waits. */
async function startCollector(count, id = newId("collector")) {
  await scheduler.client.scheduleNewOrchestration(collector, count, id);
  await scheduler.started(id);
  return id;
}

// ---- suspend and resume ----

test("a suspended instance takes no events until it is resumed, then all in order (S-8.7, S-9.2 to S-9.5)", async () => {
  const id = await startCollector(3);
  await scheduler.client.suspendOrchestration(id);
  assertStatus(await statusOf(id), "SUSPENDED");
  for (const item of [1, 2, 3]) {
    await scheduler.client.raiseOrchestrationEvent(id, "item", item);
  }
  // Another instance goes through the same dispatcher meanwhile; the suspended one must not have moved.
  assert.equal(output(await scheduler.run(hello, "you")), "hello you");
  assertStatus(await statusOf(id), "SUSPENDED");
  assert.equal((await scheduler.historyTypes(id)).includes("EventRaised"), false);

  await scheduler.client.resumeOrchestration(id);
  assert.deepEqual(output(await scheduler.finished(id)), [1, 2, 3]);
  const types = await scheduler.historyTypes(id);
  const markers = types.filter((type) => type === "ExecutionSuspended" || type === "ExecutionResumed");
  assert.deepEqual(markers, ["ExecutionSuspended", "ExecutionResumed"], "markers come in pairs");
});

test("a resumed instance without anything to do is RUNNING again (S-9.4)", async () => {
  const id = await startCollector(1);
  await scheduler.client.suspendOrchestration(id);
  await scheduler.client.resumeOrchestration(id);
  assertStatus(await statusOf(id), "RUNNING");
  await scheduler.client.raiseOrchestrationEvent(id, "item", "only");
  assert.deepEqual(output(await scheduler.finished(id)), ["only"]);
});

test("suspending twice and resuming twice changes nothing and marks nothing (S-9.6)", async () => {
  const id = await startCollector(1);
  await scheduler.client.resumeOrchestration(id);
  await scheduler.client.suspendOrchestration(id);
  await scheduler.client.suspendOrchestration(id);
  await scheduler.client.resumeOrchestration(id);
  await scheduler.client.resumeOrchestration(id);
  await scheduler.client.raiseOrchestrationEvent(id, "item", "calm");
  assert.deepEqual(output(await scheduler.finished(id)), ["calm"]);
  const types = await scheduler.historyTypes(id);
  assert.equal(types.filter((type) => type === "ExecutionSuspended").length, 1);
  assert.equal(types.filter((type) => type === "ExecutionResumed").length, 1);
});

test("an instance suspended before its start goes back to PENDING (S-2.3)", async () => {
  const id = newId("asleep");
  const startAt = new Date(Date.now() + 500);
  await scheduler.client.scheduleNewOrchestration(hello, "late", { instanceId: id, startAt });
  await scheduler.client.suspendOrchestration(id);
  assertStatus(await statusOf(id), "SUSPENDED");
  await scheduler.client.resumeOrchestration(id);
  assertStatus(await statusOf(id), "PENDING");
  assert.equal(output(await scheduler.finished(id)), "hello late");
});

const held = new Map();
const hold = scheduler.activity("hold", async (context) => {
  const { entered, release } = held.get(context.orchestrationId);
  entered.open();
  await release.passed;
  return "released";
});
const holder = scheduler.orchestrator("holder", async function* (context) {
  return yield context.callActivity(hold);
});

/** Starts an instance whose activity runs and does not finish before `release` is opened. */
async function startHolder() {
  const id = newId("holder");
  const doors = { entered: gate(), release: gate() };
  held.set(id, doors);
  await scheduler.client.scheduleNewOrchestration(holder, undefined, id);
  await doors.entered.passed;
  return { id, release: doors.release };
}

test("an activity finishes while its orchestration is suspended, and the result waits (S-9.3)", async () => {
  const { id, release } = await startHolder();
  await scheduler.client.suspendOrchestration(id);
  release.open();
  assert.equal(output(await scheduler.run(hello, "you")), "hello you");
  assertStatus(await statusOf(id), "SUSPENDED");
  await scheduler.client.resumeOrchestration(id);
  assert.equal(output(await scheduler.finished(id)), "released");
});

test("suspend and resume of an unknown instance fail, of a finished one do nothing (S-9.6, S-2.9)", async () => {
  await assert.rejects(scheduler.client.suspendOrchestration(newId("nobody")), failsWith("NOT_FOUND"));
  await assert.rejects(scheduler.client.resumeOrchestration(newId("nobody")), failsWith("NOT_FOUND"));
  const state = await scheduler.run(hello, "you");
  await scheduler.client.suspendOrchestration(state.instanceId);
  await scheduler.client.resumeOrchestration(state.instanceId);
  assert.deepEqual(await statusOf(state.instanceId), state);
});

// ---- the first episode ----

const firstEpisode = { entered: gate(), release: gate() };
const slowStarter = scheduler.orchestrator("slowStarter", async function* (context) {
  firstEpisode.entered.open();
  await firstEpisode.release.passed;
  yield context.waitForExternalEvent("item");
});

test("an instance is PENDING until its first episode is committed, not merely running (S-2.4, S-11.5)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(slowStarter);
  await firstEpisode.entered.passed;
  assertStatus(await statusOf(id), "PENDING");
  await assert.rejects(scheduler.client.waitForOrchestrationStart(id, false, 0.2), { name: "TimeoutError" });
  firstEpisode.release.open();
  assertStatus(await scheduler.started(id), "RUNNING");
  await scheduler.client.terminateOrchestration(id);
});

// ---- terminate ----

test("terminate ends an instance at once with the given output and no failure (S-9.7)", async () => {
  const id = await startCollector(1);
  await scheduler.client.terminateOrchestration(id, { why: "enough" });
  const state = await statusOf(id);
  assertStatus(state, "TERMINATED");
  assert.equal(state.serializedOutput, '{"why":"enough"}');
  assert.equal(state.failureDetails, undefined);
  const types = await scheduler.historyTypes(id);
  assert.deepEqual(types.slice(-3), ["OrchestratorStarted", "ExecutionTerminated", "ExecutionCompleted"]);
  assert.equal((await scheduler.finished(id)).serializedOutput, '{"why":"enough"}');
});

test("terminate works on an instance that never ran (S-6.6, S-9.7)", async () => {
  const id = newId("never");
  const startAt = new Date(Date.now() + 3_600_000);
  await scheduler.client.scheduleNewOrchestration(hello, "never", { instanceId: id, startAt });
  await scheduler.client.terminateOrchestration(id, "cancelled");
  assertStatus(await statusOf(id), "TERMINATED");
  const types = await scheduler.historyTypes(id);
  assert.equal(types.filter((type) => type === "ExecutionStarted").length, 1);
});

test("a suspended instance can be terminated (S-9.10)", async () => {
  const id = await startCollector(1);
  await scheduler.client.suspendOrchestration(id);
  await scheduler.client.terminateOrchestration(id);
  assertStatus(await scheduler.finished(id), "TERMINATED");
});

test("an activity that finishes after its orchestration was terminated changes nothing (S-2.10, S-9.9)", async () => {
  const { id, release } = await startHolder();
  await scheduler.client.terminateOrchestration(id, "too slow");
  const state = await statusOf(id);
  const history = await scheduler.historyTypes(id);
  release.open();
  assert.equal(output(await scheduler.run(hello, "you")), "hello you");
  assert.deepEqual(await statusOf(id), state);
  assert.deepEqual(await scheduler.historyTypes(id), history);
});

test("terminating an unknown or a finished instance does nothing (S-9.9)", async () => {
  const nobody = newId("nobody");
  await scheduler.client.terminateOrchestration(nobody);
  assert.equal(await statusOf(nobody), undefined);
  const state = await scheduler.run(hello, "you");
  await scheduler.client.terminateOrchestration(state.instanceId, "again");
  assert.deepEqual(await statusOf(state.instanceId), state);
});

// ---- rewind ----

const runs = new Map();
/** Counts one more run of `key` and returns how many there were. */
function count(key) {
  runs.set(key, (runs.get(key) ?? 0) + 1);
  return runs.get(key);
}

const reliable = scheduler.activity("reliable", (context) => count(`${context.orchestrationId} reliable`));
const breaks = scheduler.activity("breaks", (context, failures) => {
  const attempt = count(`${context.orchestrationId} breaks`);
  if (attempt <= failures) {
    throw new Error(`attempt ${attempt} breaks`);
  }
  return `attempt ${attempt} holds`;
});
const fragile = scheduler.orchestrator("fragile", async function* (context, failures) {
  const before = yield context.callActivity(reliable);
  const result = yield context.callActivity(breaks, failures);
  return [before, result];
});

test("a rewound orchestration runs the failed activity again and keeps the results it had (S-9.13)", async () => {
  const failed = await scheduler.run(fragile, 1);
  assertStatus(failed, "FAILED");
  await scheduler.client.rewindInstance(failed.instanceId, "the bridge is mended");
  const state = await scheduler.finished(failed.instanceId);
  assert.deepEqual(output(state), [1, "attempt 2 holds"]);
  assert.equal(state.failureDetails, undefined);
  assert.deepEqual(state.createdAt, failed.createdAt, "a rewind keeps the creation time (S-2.6)");

  const history = await scheduler.client.getOrchestrationHistory(failed.instanceId);
  const types = history.map((event) => event.type);
  assert.equal(types.includes("TaskFailed"), false);
  assert.equal(types.filter((type) => type === "ExecutionStarted").length, 1);
  assert.equal(types.filter((type) => type === "ExecutionCompleted").length, 1);
  const marker = history.find((event) => event.type === "ExecutionRewound");
  assert.equal(marker.reason, "the bridge is mended");
});

test("an orchestration can be rewound again and again, and each time is marked (S-9.13)", async () => {
  const { instanceId } = await scheduler.run(fragile, 2);
  await scheduler.client.rewindInstance(instanceId, "first");
  assertStatus(await scheduler.finished(instanceId), "FAILED");
  await scheduler.client.rewindInstance(instanceId, "second");
  assert.deepEqual(output(await scheduler.finished(instanceId)), [1, "attempt 3 holds"]);
  const markers = (await scheduler.historyTypes(instanceId)).filter((type) => type === "ExecutionRewound");
  assert.equal(markers.length, 2);
});

const fragileParent = scheduler.orchestrator("fragileParent", async function* (context) {
  const children = [0, 1].map((failures) =>
    context.callSubOrchestrator(fragile, failures, { instanceId: `${context.instanceId}.${failures}` }),
  );
  return yield whenAll(children);
});

test("rewinding a parent rewinds its failed child and leaves the finished one alone (S-9.13)", async () => {
  const id = newId("family");
  assertStatus(await scheduler.run(fragileParent, undefined, id), "FAILED");
  await scheduler.client.rewindInstance(id, "try again");
  assert.deepEqual(output(await scheduler.finished(id)), [
    [1, "attempt 1 holds"],
    [1, "attempt 2 holds"],
  ]);
  assert.equal(runs.get(`${id}.0 breaks`), 1);
  assertStatus(await statusOf(`${id}.1`), "COMPLETED");
});

test("only a failed instance can be rewound (S-9.12)", async () => {
  const running = await startCollector(1);
  const refusal = /not allow|precondition|running/i;
  await assert.rejects(scheduler.client.rewindInstance(running, "no"), refusal);
  assertStatus(await statusOf(running), "RUNNING");
  const { instanceId } = await scheduler.run(hello, "you");
  await assert.rejects(scheduler.client.rewindInstance(instanceId, "no"), refusal);
  await assert.rejects(scheduler.client.rewindInstance(newId("nobody"), "no"), /not found/);
  await scheduler.client.terminateOrchestration(running);
});

// ---- restart ----

const countsRuns = scheduler.orchestrator("countsRuns", async function* (context, input) {
  return yield context.callActivity(countRun, input);
});
const countRun = scheduler.activity("countRun", (context, input) => ({ input, run: count(`${context.orchestrationId} run`) }));

test("a restart with the same id runs the same input again as a fresh record (S-9.20, S-2.6)", async () => {
  const id = newId("again");
  const first = await scheduler.run(countsRuns, { order: 17 }, { instanceId: id, tags: { team: "blue" } });
  assert.deepEqual(output(first), { input: { order: 17 }, run: 1 });
  assert.equal(await scheduler.client.restartOrchestration(id), id);
  // The wait begins after the restart was answered, so it must not see the first run's end (S-0.6).
  const second = await scheduler.finished(id);
  assert.deepEqual(output(second), { input: { order: 17 }, run: 2 });
  assert.ok(second.createdAt > first.createdAt);
  assert.deepEqual(second.tags, { team: "blue" });
});

test("a restart with a new id leaves the old instance as it was (S-9.19, S-9.20)", async () => {
  const first = await scheduler.run(countsRuns, "x", { instanceId: newId("copied"), tags: { team: "blue" } });
  const newInstance = await scheduler.client.restartOrchestration(first.instanceId, true);
  assert.notEqual(newInstance, first.instanceId);
  assert.match(newInstance, /^[0-9a-f]{32}$/);
  const second = await scheduler.finished(newInstance);
  assert.deepEqual(output(second), { input: "x", run: 1 });
  assert.deepEqual(second.tags, { team: "blue" });
  assert.deepEqual(await statusOf(first.instanceId), first);
});

test("a running instance can be restarted with a new id and not with its own (S-9.19)", async () => {
  const id = await startCollector(1);
  await assert.rejects(scheduler.client.restartOrchestration(id, false), /cannot be restarted/);
  const copy = await scheduler.client.restartOrchestration(id, true);
  await scheduler.client.raiseOrchestrationEvent(copy, "item", "for the copy");
  assert.deepEqual(output(await scheduler.finished(copy)), ["for the copy"]);
  assertStatus(await statusOf(id), "RUNNING");
  await scheduler.client.terminateOrchestration(id);
});

test("a suspended instance counts as active and an unknown one is not found (S-9.19)", async () => {
  const id = await startCollector(1);
  await scheduler.client.suspendOrchestration(id);
  await assert.rejects(scheduler.client.restartOrchestration(id), /cannot be restarted/);
  await scheduler.client.terminateOrchestration(id);
  assert.equal(await scheduler.client.restartOrchestration(id), id);
  await scheduler.client.raiseOrchestrationEvent(id, "item", "second life");
  assert.deepEqual(output(await scheduler.finished(id)), ["second life"]);
  await assert.rejects(scheduler.client.restartOrchestration(newId("nobody")), /not found/);
});
