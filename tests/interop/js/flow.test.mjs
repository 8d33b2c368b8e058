// Sequences, fan-out, timers, clocks and retries: what an orchestrator does on its own.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import { Scheduler, assertStatus, newId, output } from "./scheduler.mjs";

const { RetryPolicy, whenAll, whenAny } = durabletask;
const scheduler = new Scheduler();

before(() => scheduler.start());
after(() => scheduler.stop());

const addOne = scheduler.activity("addOne", (_context, value) => value + 1);
const echo = scheduler.activity("echo", (_context, value) => value);

const sequence = scheduler.orchestrator("sequence", async function* (context, value) {
  for (let step = 0; step < 5; step++) {
    value = yield context.callActivity(addOne, value);
  }
  return value;
});

test("a chain of five activities hands each result to the next (S-5.2, S-5.3)", async () => {
  const state = await scheduler.run(sequence, 10);
  assert.equal(output(state), 15);
  assert.equal(state.serializedInput, "10");
  assert.equal(state.name, "sequence");
});

test("fifty chains at once keep their results apart (S-0.1, S-0.3)", async () => {
  const states = await Promise.all(Array.from({ length: 50 }, (_, start) => scheduler.run(sequence, start)));
  assert.deepEqual(
    states.map(output),
    states.map((_, start) => start + 5),
  );
});

const nothing = scheduler.orchestrator("nothing", async () => undefined);

test("an orchestrator that schedules nothing and returns nothing completes without an output (S-2.3, S-11.3)", async () => {
  const state = await scheduler.run(nothing);
  assertStatus(state, "COMPLETED");
  assert.equal(state.serializedOutput, undefined);
  assert.equal(state.failureDetails, undefined);
});

const fanOut = scheduler.orchestrator("fanOut", async function* (context, width) {
  const tasks = [];
  for (let index = 0; index < width; index++) {
    tasks.push(context.callActivity(echo, index));
  }
  return yield whenAll(tasks);
});

for (const width of [100, 1_000]) {
  test(`a fan-out of ${width} returns every result in its place, each once (S-3.2, S-5.3)`, async () => {
    const id = await scheduler.client.scheduleNewOrchestration(fanOut, width);
    const state = await scheduler.finished(id, 60);
    assert.deepEqual(
      output(state),
      Array.from({ length: width }, (_, index) => index),
    );
    const types = await scheduler.historyTypes(id);
    assert.equal(types.filter((type) => type === "TaskScheduled").length, width);
    assert.equal(types.filter((type) => type === "TaskCompleted").length, width);
  });
}

const sleeper = scheduler.orchestrator("sleeper", async function* (context, seconds) {
  const fireAt = new Date(context.currentUtcDateTime.getTime() + seconds * 1000);
  yield context.createTimer(fireAt);
  return { fireAt: fireAt.getTime(), woke: context.currentUtcDateTime.getTime() };
});

test("a timer fires at its time and never before (S-6.1)", async () => {
  const { fireAt, woke } = output(await scheduler.run(sleeper, 0.5));
  assert.ok(Date.now() >= fireAt);
  assert.ok(woke > fireAt, "the orchestrator's clock has to be past the timer's time (S-3.6)");
});

test("a timer in the past fires in a later episode than the one that made it (S-6.2)", async () => {
  const state = await scheduler.run(sleeper, -3600);
  assertStatus(state, "COMPLETED");
  assert.deepEqual(await scheduler.historyTypes(state.instanceId), [
    "OrchestratorStarted",
    "ExecutionStarted",
    "TimerCreated",
    "OrchestratorStarted",
    "TimerFired",
    "ExecutionCompleted",
  ]);
});

const clockReader = scheduler.orchestrator("clockReader", async function* (context) {
  const clocks = [context.currentUtcDateTime.getTime()];
  for (let turn = 0; turn < 5; turn++) {
    yield context.createTimer(0);
    clocks.push(context.currentUtcDateTime.getTime());
  }
  return clocks;
});

test("timers without delay make an episode each, and the clock rises by whole milliseconds (S-3.5, S-3.6)", async () => {
  const state = await scheduler.run(clockReader);
  const clocks = output(state);
  for (let turn = 1; turn < clocks.length; turn++) {
    assert.ok(clocks[turn] > clocks[turn - 1], `clock ${clocks} does not rise`);
  }
  const types = await scheduler.historyTypes(state.instanceId);
  assert.equal(types.filter((type) => type === "OrchestratorStarted").length, 6);
});

const manyTimers = scheduler.orchestrator("manyTimers", async function* (context, count) {
  const fireAt = new Date(context.currentUtcDateTime.getTime() + 200);
  yield whenAll(Array.from({ length: count }, () => context.createTimer(fireAt)));
  return count;
});

test("a hundred timers with one due time all fire (S-6.5)", async () => {
  assert.equal(output(await scheduler.run(manyTimers, 100)), 100);
});

const guids = scheduler.orchestrator("guids", async function* (context) {
  const drawn = [context.newGuid(), context.newGuid()];
  yield context.createTimer(0);
  drawn.push(context.newGuid());
  yield context.callActivity(echo, drawn);
  return drawn;
});

test("replays draw the same GUIDs, and no two are equal (S-0.4)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(guids);
  const drawn = output(await scheduler.finished(id));
  assert.equal(new Set(drawn).size, 3);
  const scheduled = (await scheduler.client.getOrchestrationHistory(id)).find((event) => event.type === "TaskScheduled");
  assert.deepEqual(JSON.parse(scheduled.input), drawn);
});

const impatient = scheduler.orchestrator("impatient", async function* (context, seconds) {
  const approval = context.waitForExternalEvent("approval");
  const timeout = context.createTimer(seconds);
  const winner = yield whenAny([approval, timeout]);
  return winner === approval ? `approved by ${approval.getResult()}` : "timed out";
});

test("an event wins over a timer that is far away", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(impatient, 3600);
  await scheduler.client.raiseOrchestrationEvent(id, "approval", "Ada");
  assert.equal(output(await scheduler.finished(id)), "approved by Ada");
});

test("a timer wins over an event that never comes", async () => {
  assert.equal(output(await scheduler.run(impatient, 0.1)), "timed out");
});

const attempts = new Map();
const flaky = scheduler.activity("flaky", (_context, { id, failures }) => {
  const attempt = (attempts.get(id) ?? 0) + 1;
  attempts.set(id, attempt);
  if (attempt <= failures) {
    throw new Error(`attempt ${attempt} fails`);
  }
  return attempt;
});

const patient = scheduler.orchestrator("patient", async function* (context, failures) {
  const retry = new RetryPolicy({ maxNumberOfAttempts: 3, firstRetryIntervalInMilliseconds: 50, backoffCoefficient: 2 });
  return yield context.callActivity(flaky, { id: context.instanceId, failures }, { retry });
});

test("a retry policy runs a failing activity again after its delay (S-5.4)", async () => {
  const state = await scheduler.run(patient, 2);
  assert.equal(output(state), 3);
  assert.equal(attempts.get(state.instanceId), 3);
  const types = await scheduler.historyTypes(state.instanceId);
  for (const [type, count] of Object.entries({ TaskScheduled: 3, TaskFailed: 2, TimerFired: 2, TaskCompleted: 1 })) {
    assert.equal(types.filter((other) => other === type).length, count, `${type} in ${types}`);
  }
});

test("a retry policy that is used up fails the orchestration with the last failure (S-5.4)", async () => {
  const state = await scheduler.run(patient, 99);
  assertStatus(state, "FAILED");
  assert.match(state.failureDetails.message, /attempt 3 fails/);
  assert.equal(attempts.get(state.instanceId), 3, "the server must not retry a failed activity by itself");
});

const stubborn = scheduler.orchestrator("stubborn", async function* (context, failures) {
  const retry = async (attempt) => attempt.lastAttemptNumber < 4;
  return yield context.callActivity(flaky, { id: context.instanceId, failures }, { retry });
});

test("a retry handler runs a failing activity again without a delay (S-4.13, S-5.4)", async () => {
  assert.equal(output(await scheduler.run(stubborn, 3)), 4);
});

const mixed = scheduler.orchestrator("mixed", async function* (context, width) {
  const tasks = Array.from({ length: width }, (_, index) =>
    index % 2 === 0
      ? context.callActivity(echo, index)
      : context.callActivity(flaky, { id: `${context.instanceId}/${index}`, failures: 1 }),
  );
  try {
    yield whenAll(tasks);
  } catch {
    return { succeeded: tasks.filter((task) => !task.isFailed).length, failed: tasks.filter((task) => task.isFailed).length };
  }
});

test("a fan-out in which half the activities fail settles every task (S-5.3)", async () => {
  assert.deepEqual(output(await scheduler.run(mixed, 20)), { succeeded: 10, failed: 10 });
});

test("an orchestration started for later stays PENDING until its time (S-6.6)", async () => {
  const startAt = new Date(Date.now() + 700);
  const id = newId("later");
  await scheduler.client.scheduleNewOrchestration(sequence, 1, { instanceId: id, startAt });
  const early = await scheduler.client.getOrchestrationState(id);
  assertStatus(early, "PENDING");
  assert.equal(output(await scheduler.finished(id)), 6);
  assert.ok(Date.now() >= startAt.getTime());
  const started = (await scheduler.client.getOrchestrationHistory(id)).find((event) => event.type === "OrchestratorStarted");
  assert.ok(started.timestamp >= startAt, "the first episode has to wait for the start time");
});

test("a start time in the past starts at once and counts as none (S-6.6)", async () => {
  const id = newId("past");
  await scheduler.client.scheduleNewOrchestration(sequence, 1, { instanceId: id, startAt: new Date(2001, 1, 1) });
  assert.equal(output(await scheduler.finished(id)), 6);
  const wireState = await scheduler.wireState(id);
  assert.equal(wireState.hasScheduledstarttimestamp(), false);
});
