// The server is killed with work in hand and started again on the same folder and port; the worker lives on.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import { Scheduler, assertStatus, eventually, gate, newId, output } from "./scheduler.mjs";

const { whenAll } = durabletask;
const scheduler = new Scheduler();

before(() => scheduler.start());
after(() => scheduler.stop());

const numbers = (count) => Array.from({ length: count }, (_, index) => index);

/** By instance id: the activity number at which the test holds the worker, once, while it kills the server. */
const holds = new Map();

/** Makes the worker stop inside activity number `index` of an instance: `reached` opens there, `release` lets it go. */
function holdAt(id, index) {
  const hold = { index, reached: gate(), release: gate() };
  holds.set(id, hold);
  return hold;
}

const step = scheduler.activity("step", async (context, index) => {
  const hold = holds.get(context.orchestrationId);
  if (hold?.index === index) {
    holds.delete(context.orchestrationId);
    hold.reached.open();
    await hold.release.passed;
  }
  return index;
});

const chain = scheduler.orchestrator("chain", async function* (context, length) {
  const results = [];
  for (let index = 0; index < length; index++) {
    results.push(yield context.callActivity(step, index));
  }
  return results;
});

/** Starts a chain and returns once the worker is held inside its activity number `index`. */
async function startChain(length, index) {
  const id = newId("chain");
  const hold = holdAt(id, index);
  await scheduler.client.scheduleNewOrchestration(chain, length, id);
  await hold.reached.passed;
  return { id, hold };
}

/** Checks that a chain ended with each result once, in state and history. */
async function assertChain(id, length) {
  assert.deepEqual(output(await scheduler.finished(id, 60)), numbers(length));
  const completed = (await scheduler.client.getOrchestrationHistory(id)).filter((event) => event.type === "TaskCompleted");
  assert.deepEqual(
    completed.map((event) => event.taskScheduledId),
    numbers(length).map((index) => index + 1),
    "each task has exactly one result in the history",
  );
}

test("a chain killed with an activity in hand finishes with every result once (S-13.21, S-0.2)", async () => {
  const { id, hold } = await startChain(20, 7);
  await scheduler.killAndRestart();
  hold.release.open();
  await assertChain(id, 20);
});

test("fifty chains killed together, each at another step, all finish (S-13.21)", async () => {
  const chains = await Promise.all(numbers(50).map((index) => startChain(8, index % 8)));
  await scheduler.killAndRestart();
  chains.forEach(({ hold }) => hold.release.open());
  await Promise.all(chains.map(({ id }) => assertChain(id, 8)));
});

test("a chain that is killed three times still finishes (S-13.21)", async () => {
  const { id, hold } = await startChain(12, 2);
  let held = hold;
  for (const next of [5, 9]) {
    await scheduler.killAndRestart();
    held.release.open();
    held = holdAt(id, next);
    await held.reached.passed;
  }
  await scheduler.killAndRestart();
  held.release.open();
  await assertChain(id, 12);
});

const fanOut = scheduler.orchestrator("fanOut", async function* (context, width) {
  return yield whenAll(numbers(width).map((index) => context.callActivity(step, index)));
});

test("a fan-out killed with part of its results in keeps them and gets the others (S-0.2, S-13.21)", async () => {
  const id = newId("fanOut");
  const hold = holdAt(id, 60);
  await scheduler.client.scheduleNewOrchestration(fanOut, 200, id);
  await hold.reached.passed;
  await scheduler.killAndRestart();
  hold.release.open();
  assert.deepEqual(output(await scheduler.finished(id, 60)), numbers(200));
});

const collector = scheduler.orchestrator("collector", async function* (context, count) {
  const collected = [];
  while (collected.length < count) {
    collected.push(yield context.waitForExternalEvent("item"));
  }
  return collected;
});

test("events that were answered before the kill are all there after it, in order (S-8.1, S-0.6)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(collector, 12);
  for (const item of numbers(10)) {
    await scheduler.client.raiseOrchestrationEvent(id, "item", item);
  }
  await scheduler.killAndRestart();
  for (const item of [10, 11]) {
    await scheduler.client.raiseOrchestrationEvent(id, "item", item);
  }
  assert.deepEqual(output(await scheduler.finished(id)), numbers(12));
});

const sleeper = scheduler.orchestrator("sleeper", async function* (context, milliseconds) {
  const fireAt = new Date(context.currentUtcDateTime.getTime() + milliseconds);
  yield context.createTimer(fireAt);
  return { fireAt: fireAt.getTime(), woke: context.currentUtcDateTime.getTime() };
});

test("timers survive: one that fell due while the server was down, and one that is still to come (S-6.1)", async () => {
  const due = await scheduler.client.scheduleNewOrchestration(sleeper, 50);
  const ahead = await scheduler.client.scheduleNewOrchestration(sleeper, 1_500);
  await Promise.all([scheduler.started(due), scheduler.started(ahead)]);
  await scheduler.killAndRestart();
  for (const id of [due, ahead]) {
    const { fireAt, woke } = output(await scheduler.finished(id));
    assert.ok(woke > fireAt);
  }
});

test("start times, suspension and finished instances survive (S-6.6, S-9.3, S-17.6)", async () => {
  const finished = await scheduler.run(collector, 0);
  const history = await scheduler.client.getOrchestrationHistory(finished.instanceId);
  const suspended = await scheduler.client.scheduleNewOrchestration(collector, 1);
  await scheduler.started(suspended);
  await scheduler.client.suspendOrchestration(suspended);
  await scheduler.client.raiseOrchestrationEvent(suspended, "item", "kept");
  const later = newId("later");
  const startAt = new Date(Date.now() + 1_000);
  await scheduler.client.scheduleNewOrchestration(collector, 0, { instanceId: later, startAt });

  await scheduler.killAndRestart();
  assert.deepEqual(await scheduler.client.getOrchestrationState(finished.instanceId), finished);
  assert.deepEqual(await scheduler.client.getOrchestrationHistory(finished.instanceId), history);
  assertStatus(await scheduler.client.getOrchestrationState(suspended), "SUSPENDED");
  assertStatus(await scheduler.finished(later), "COMPLETED");
  assert.ok(Date.now() >= startAt.getTime());
  assertStatus(await scheduler.client.getOrchestrationState(suspended), "SUSPENDED");
  await scheduler.client.resumeOrchestration(suspended);
  assert.deepEqual(output(await scheduler.finished(suspended)), ["kept"]);
});

const child = scheduler.orchestrator("child", async function* (context, index) {
  return yield context.callActivity(step, index);
});
const parent = scheduler.orchestrator("parent", async function* (context, count) {
  const start = (index) => context.callSubOrchestrator(child, index, { instanceId: `${context.instanceId}.${index}` });
  return yield whenAll(numbers(count).map(start));
});

test("children killed with their parent report to it afterwards (S-7.4, S-13.21)", async () => {
  const id = newId("parent");
  const hold = holdAt(`${id}.7`, 7);
  await scheduler.client.scheduleNewOrchestration(parent, 20, id);
  await hold.reached.passed;
  await scheduler.killAndRestart();
  hold.release.open();
  assert.deepEqual(output(await scheduler.finished(id, 60)), numbers(20));
});

const generations = scheduler.orchestrator("generations", async function* (context, { last, collected }) {
  collected.push(yield context.waitForExternalEvent("item"));
  if (collected.length === last) {
    return collected;
  }
  context.continueAsNew({ last, collected }, true);
});

test("generations killed in the middle lose no event (S-3.18)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(generations, { last: 20, collected: [] });
  const raise = (item) => scheduler.client.raiseOrchestrationEvent(id, "item", item);
  for (const item of numbers(15)) {
    await raise(item);
  }
  await eventually("some generations", async () => {
    const state = await scheduler.client.getOrchestrationState(id);
    return JSON.parse(state.serializedInput).collected.length >= 3;
  });
  await scheduler.killAndRestart();
  for (const item of numbers(20).slice(15)) {
    await raise(item);
  }
  assert.deepEqual(output(await scheduler.finished(id)), numbers(20));
});
