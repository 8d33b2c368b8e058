// External events, events between instances, and continue-as-new, which has to keep them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Scheduler, assertStatus, eventually, failsWith, gate, newId, output, text, wire } from "./scheduler.mjs";

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

/** Raises the events 0, 1, 2 and so on, each after the one before was answered. */
async function raiseItems(id, count) {
  for (let item = 0; item < count; item++) {
    await scheduler.client.raiseOrchestrationEvent(id, "item", item);
  }
}

const numbers = (count) => Array.from({ length: count }, (_, index) => index);

test("events raised while an orchestrator waits arrive in their order (S-8.1, S-8.2)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(collector, 30);
  await scheduler.started(id);
  await raiseItems(id, 30);
  assert.deepEqual(output(await scheduler.finished(id)), numbers(30));
});

test("events raised right after the start call come after ExecutionStarted, in their order (S-8.2)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(collector, 10);
  await raiseItems(id, 10);
  assert.deepEqual(output(await scheduler.finished(id)), numbers(10));
});

test("events raised before a scheduled start wait for it (S-6.6, S-2.9)", async () => {
  const startAt = new Date(Date.now() + 400);
  const id = newId("early");
  await scheduler.client.scheduleNewOrchestration(collector, 5, { instanceId: id, startAt });
  await raiseItems(id, 5);
  assertStatus(await scheduler.client.getOrchestrationState(id), "PENDING");
  const state = await scheduler.finished(id);
  assert.deepEqual(output(state), numbers(5));
  assert.deepEqual((await scheduler.historyTypes(id)).slice(0, 3), [
    "OrchestratorStarted",
    "ExecutionStarted",
    "EventRaised",
  ]);
});

test("the server keeps the case of event names, and the SDK matches without it (S-8.1)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(collector, 1);
  await scheduler.client.raiseOrchestrationEvent(id, "ITEM", "loud");
  assert.deepEqual(output(await scheduler.finished(id)), ["loud"]);
  const raised = (await scheduler.client.getOrchestrationHistory(id)).find((event) => event.type === "EventRaised");
  assert.equal(raised.name, "ITEM");
});

test("all events of an instance have times of their own (S-3.11)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(collector, 40);
  await Promise.all(numbers(40).map((item) => scheduler.client.raiseOrchestrationEvent(id, "item", item)));
  assert.equal(new Set(output(await scheduler.finished(id))).size, 40);
  const times = (await scheduler.wireHistory(id))
    .filter((event) => event.hasEventraised())
    .map((event) => `${event.getTimestamp().getSeconds()}.${event.getTimestamp().getNanos()}`);
  assert.equal(new Set(times).size, 40);
});

test("an event for an id that does not exist is dropped and not kept for a later namesake (S-8.4, S-8.5)", async () => {
  const id = newId("nobody");
  await scheduler.client.raiseOrchestrationEvent(id, "item", "lost");
  await scheduler.client.scheduleNewOrchestration(collector, 1, id);
  await scheduler.client.raiseOrchestrationEvent(id, "item", "kept");
  assert.deepEqual(output(await scheduler.finished(id)), ["kept"]);
});

test("an event for a finished instance changes nothing about it (S-2.10, S-8.4)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(collector, 0);
  const state = await scheduler.finished(id);
  const history = await scheduler.historyTypes(id);
  await scheduler.client.raiseOrchestrationEvent(id, "item", "late");
  assert.deepEqual(await scheduler.client.getOrchestrationState(id), state);
  assert.deepEqual(await scheduler.historyTypes(id), history);
});

test("events without a name or without a proper target are refused (S-8.8)", async () => {
  const raise = (instanceId, name) => {
    const request = new wire.RaiseEventRequest();
    request.setInstanceid(instanceId);
    request.setName(name);
    request.setInput(text("1"));
    return scheduler.call("raiseEvent", request);
  };
  await assert.rejects(raise(newId("any"), ""), failsWith("INVALID_ARGUMENT"));
  await assert.rejects(raise("", "item"), failsWith("INVALID_ARGUMENT"));
  await assert.rejects(raise("@counter@a", "item"), failsWith("INVALID_ARGUMENT"));
});

const sender = scheduler.orchestrator("sender", async function* (context, { target, items, nobody }) {
  for (const item of items) {
    context.sendEvent(target, "item", item);
  }
  context.sendEvent(nobody, "item", "dropped");
  yield context.createTimer(0);
  context.sendEvent(target, "item", "last words");
  return "sent";
});

test("an orchestrator sends events to another, also those sent as it completes (S-4.1, S-4.8, S-8.4)", async () => {
  const target = await scheduler.client.scheduleNewOrchestration(collector, 4);
  const state = await scheduler.run(sender, { target, items: [1, 2, 3], nobody: newId("nobody") });
  assert.equal(output(state), "sent");
  assert.deepEqual(output(await scheduler.finished(target)), [1, 2, 3, "last words"]);
  const sent = (await scheduler.client.getOrchestrationHistory(state.instanceId)).filter((event) => event.type === "EventSent");
  assert.equal(sent.length, 5);
  assert.equal(sent[0].instanceId, target, "EventSent repeats its target (S-4.9)");
});

// Takes one item in each generation and passes the rest on to the next.
const generations = scheduler.orchestrator("generations", async function* (context, { last, collected, guids, clocks }) {
  collected.push(yield context.waitForExternalEvent("item"));
  guids.push(context.newGuid());
  clocks.push(context.currentUtcDateTime.getTime());
  if (collected.length === last) {
    return { collected, guids, clocks };
  }
  context.continueAsNew({ last, collected, guids, clocks }, true);
});

const firstInput = (last) => ({ last, collected: [], guids: [], clocks: [] });

test("fifty generations of continue-as-new hand every kept event on, once and in order (S-3.17 to S-3.21)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(generations, firstInput(50));
  await raiseItems(id, 50);
  const { collected, guids, clocks } = output(await scheduler.finished(id, 60));
  assert.deepEqual(collected, numbers(50));
  assert.equal(new Set(guids).size, 50, "GUIDs repeat over generations (S-0.4)");
  for (let generation = 1; generation < 50; generation++) {
    assert.ok(clocks[generation] > clocks[generation - 1], "the clock has to rise over generations (S-3.6)");
  }
});

test("fifty generations take events that arrive one by one while they run (S-3.18)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(generations, firstInput(50));
  await scheduler.started(id);
  await raiseItems(id, 50);
  assert.deepEqual(output(await scheduler.finished(id, 60)).collected, numbers(50));
});

test("a new generation keeps id, tags and creation time, and shows only its own history (S-2.6, S-3.17, S-3.22)", async () => {
  const id = newId("generations");
  await scheduler.client.scheduleNewOrchestration(generations, firstInput(3), { instanceId: id, tags: { kept: "yes" } });
  const first = await scheduler.started(id);
  const executionIds = new Set([await executionId(id)]);
  await raiseItems(id, 1);
  await eventually("a second generation", async () => executionIds.add(await executionId(id)).size === 2);
  assertStatus(await scheduler.client.getOrchestrationState(id), "RUNNING");
  await raiseItems(id, 2);
  const state = await scheduler.finished(id);
  assert.deepEqual(state.createdAt, first.createdAt);
  assert.deepEqual(state.tags, { kept: "yes" });
  assert.equal(JSON.parse(state.serializedInput).collected.length, 2, "the input is the current generation's (S-11.3)");
  executionIds.add(await executionId(id));
  assert.equal(executionIds.size, 3);
  for (const value of executionIds) {
    assert.match(value, /^[0-9a-f]{32}$/, "execution ids are 32 lower-case hex digits (S-3.3)");
  }
  const types = await scheduler.historyTypes(id);
  assert.equal(types.filter((type) => type === "ExecutionStarted").length, 1);
  assert.equal(types.filter((type) => type === "EventRaised").length, 1);
});

async function executionId(id) {
  return (await scheduler.wireState(id)).getExecutionid().getValue();
}

const forgetful = scheduler.orchestrator("forgetful", async function* (context, generation) {
  if (generation === 2) {
    return yield context.waitForExternalEvent("item");
  }
  context.setCustomStatus(`generation ${generation}`);
  yield context.waitForExternalEvent("next");
  context.continueAsNew(generation + 1, false);
});

test("events are dropped by continue-as-new when the orchestrator says so, and custom status stays (S-3.20, S-3.23)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(forgetful, 1);
  await scheduler.client.raiseOrchestrationEvent(id, "item", "forgotten");
  await eventually("the first item", async () => (await scheduler.historyTypes(id)).includes("EventRaised"));
  await scheduler.client.raiseOrchestrationEvent(id, "next");
  await eventually("the second generation", async () => {
    const state = await scheduler.client.getOrchestrationState(id);
    return state.serializedInput === "2";
  });
  await scheduler.client.raiseOrchestrationEvent(id, "item", "remembered");
  const state = await scheduler.finished(id);
  assert.equal(output(state), "remembered");
  assert.equal(state.serializedCustomStatus, '"generation 1"');
});

// The old generation's activity ends once the new generation runs, and the new one's after it.
const oldOneEnded = gate();
const late = scheduler.activity("late", async (_context, { generation, id }) => {
  if (generation === 1) {
    await eventually("the second generation", async () => (await scheduler.wireState(id)).getInput().getValue() === "2");
    oldOneEnded.open();
  } else {
    await oldOneEnded.passed;
  }
  return generation;
});

const leavesWorkBehind = scheduler.orchestrator("leavesWorkBehind", async function* (context, generation) {
  const task = context.callActivity(late, { generation, id: context.instanceId });
  if (generation === 1) {
    yield context.createTimer(0);
    context.continueAsNew(2, false);
    return;
  }
  yield context.waitForExternalEvent("both are done");
  return yield task;
});

test("a result that comes late from an old generation does not complete a task of the new one (S-0.3)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(leavesWorkBehind, 1);
  await eventually("the second generation's result", async () => (await scheduler.historyTypes(id)).includes("TaskCompleted"));
  await scheduler.client.raiseOrchestrationEvent(id, "both are done");
  assert.equal(output(await scheduler.finished(id)), 2);
});
