// Sub-orchestrations: identity, results, retries, and what ends them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import { Scheduler, assertStatus, newId, output } from "./scheduler.mjs";

const { RetryPolicy, terminateOptions, whenAll } = durabletask;
const scheduler = new Scheduler();

before(() => scheduler.start());
after(() => scheduler.stop());

const describe = scheduler.orchestrator("describe", async (context, input) => ({
  id: context.instanceId,
  parent: context.parent,
  input,
}));

const parentOfOne = scheduler.orchestrator("parentOfOne", async function* (context, input) {
  return yield context.callSubOrchestrator(describe, input);
});

test("a child's default id is the parent's execution id and the task's number (S-3.3, S-7.2)", async () => {
  const state = await scheduler.run(parentOfOne, { order: 17 });
  const child = output(state);
  assert.match(child.id, /^[0-9a-f]{32}:[0-9a-f]{4}$/);
  const executionId = (await scheduler.wireState(state.instanceId)).getExecutionid().getValue();
  assert.equal(child.id, `${executionId}:0001`);
  assert.deepEqual(child.input, { order: 17 });
});

test("a child knows its parent, and its state names it (S-7.1, S-2.8)", async () => {
  const state = await scheduler.run(parentOfOne);
  const child = output(state);
  assert.deepEqual(child.parent, { name: "parentOfOne", instanceId: state.instanceId, taskScheduledId: 1 });
  assert.equal((await scheduler.wireState(child.id)).getParentinstanceid().getValue(), state.instanceId);
  assert.equal((await scheduler.wireState(state.instanceId)).hasParentinstanceid(), false);
});

const renewed = scheduler.orchestrator("renewed", async function* (context, generation) {
  if (generation < 3) {
    yield context.createTimer(0);
    context.continueAsNew(generation + 1, false);
    return;
  }
  return context.parent?.instanceId;
});

const parentOfRenewed = scheduler.orchestrator("parentOfRenewed", async function* (context) {
  return yield context.callSubOrchestrator(renewed, 1);
});

test("a child keeps its parent over continue-as-new and reports to it at the end (S-7.1)", async () => {
  const state = await scheduler.run(parentOfRenewed);
  assert.equal(output(state), state.instanceId);
});

const nest = scheduler.orchestrator("nest", async function* (context, depth) {
  if (depth === 0) {
    return [context.instanceId];
  }
  const below = yield context.callSubOrchestrator(nest, depth - 1);
  return [context.instanceId, ...below];
});

test("children of children have ids of the same length at every depth (S-10.1)", async () => {
  const ids = output(await scheduler.run(nest, 6));
  assert.equal(ids.length, 7);
  for (const id of ids.slice(1)) {
    assert.match(id, /^[0-9a-f]{32}:0001$/);
  }
});

const parentOfMany = scheduler.orchestrator("parentOfMany", async function* (context, count) {
  const children = Array.from({ length: count }, (_, index) => context.callSubOrchestrator(describe, index));
  const described = yield whenAll(children);
  return described.map((child) => child.input);
});

test("fifty children at once give their results in order (S-7.4)", async () => {
  assert.deepEqual(
    output(await scheduler.run(parentOfMany, 50)),
    Array.from({ length: 50 }, (_, index) => index),
  );
});

const everyGenerationHasAChild = scheduler.orchestrator("everyGenerationHasAChild", async function* (context, ids) {
  const child = yield context.callSubOrchestrator(describe);
  ids.push(child.id);
  if (ids.length === 3) {
    return ids;
  }
  context.continueAsNew(ids, false);
});

test("default child ids differ between generations (S-0.4, S-3.3)", async () => {
  assert.equal(new Set(output(await scheduler.run(everyGenerationHasAChild, []))).size, 3);
});

const childAttempts = new Map();
const fragile = scheduler.orchestrator("fragile", async (context) => {
  const attempt = (childAttempts.get(context.instanceId) ?? 0) + 1;
  childAttempts.set(context.instanceId, attempt);
  if (attempt < 3) {
    throw new Error(`attempt ${attempt} fails`);
  }
  return attempt;
});

const persistentParent = scheduler.orchestrator("persistentParent", async function* (context, childId) {
  const retry = new RetryPolicy({ maxNumberOfAttempts: 3, firstRetryIntervalInMilliseconds: 20 });
  return yield context.callSubOrchestrator(fragile, undefined, { instanceId: childId, retry });
});

test("a failed child is started again under its own id by a retry (S-7.6)", async () => {
  const childId = newId("fragile");
  assert.equal(output(await scheduler.run(persistentParent, childId)), 3);
  assert.equal(childAttempts.get(childId), 3);
  assertStatus(await scheduler.client.getOrchestrationState(childId), "COMPLETED");
});

const waits = scheduler.orchestrator("waits", async function* (context) {
  return yield context.waitForExternalEvent("go");
});

const parentOfNamed = scheduler.orchestrator("parentOfNamed", async function* (context, childId) {
  try {
    return yield context.callSubOrchestrator(waits, undefined, { instanceId: childId });
  } catch (error) {
    return { type: error.details.errorType, message: error.details.message };
  }
});

test("a child id that is in use fails the parent's task and leaves the other instance alone (S-7.6)", async () => {
  const taken = await scheduler.client.scheduleNewOrchestration(waits, undefined, newId("taken"));
  await scheduler.started(taken);
  assert.equal(output(await scheduler.run(parentOfNamed, taken)).type, "OrchestrationAlreadyExists");
  assertStatus(await scheduler.client.getOrchestrationState(taken), "RUNNING");
  await scheduler.client.raiseOrchestrationEvent(taken, "go", "undisturbed");
  assert.equal(output(await scheduler.finished(taken)), "undisturbed");
});

test("a child id that is too long or an entity's reaches the parent as a failed child (S-4.18)", async () => {
  for (const childId of ["x".repeat(101), "@counter@a"]) {
    const failure = output(await scheduler.run(parentOfNamed, childId));
    assert.ok(failure.type.length > 0 && failure.message.length > 0, "failure details are never empty (S-7.10)");
  }
});

test("a terminated child fails its parent's task, naming the child and the reason (S-7.4)", async () => {
  const childId = newId("doomed");
  const parent = await scheduler.client.scheduleNewOrchestration(parentOfNamed, childId);
  await startedChild(childId);
  await scheduler.client.terminateOrchestration(childId, "because it rained");
  const failure = output(await scheduler.finished(parent));
  assert.equal(failure.type, "SubOrchestrationTerminated");
  assert.match(failure.message, new RegExp(childId));
  assert.match(failure.message, /because it rained/);
});

/** Waits for a child that its parent may not have created yet. */
async function startedChild(id) {
  assertStatus(await scheduler.started(id), "RUNNING");
}

const familyTree = scheduler.orchestrator("familyTree", async function* (context, depth) {
  if (depth === 0) {
    return yield context.waitForExternalEvent("go");
  }
  const children = [0, 1].map((index) =>
    context.callSubOrchestrator(familyTree, depth - 1, { instanceId: `${context.instanceId}.${index}` }),
  );
  yield whenAll(children);
});

/** Starts a tree of seven instances and waits until every one runs; returns their ids, the root's first. */
async function plantTree() {
  const root = newId("tree");
  await scheduler.client.scheduleNewOrchestration(familyTree, 2, root);
  const ids = [root, `${root}.0`, `${root}.1`, `${root}.0.0`, `${root}.0.1`, `${root}.1.0`, `${root}.1.1`];
  await Promise.all(ids.map(startedChild));
  return ids;
}

test("a recursive terminate ends the whole tree before it answers (S-9.8)", async () => {
  const ids = await plantTree();
  await scheduler.client.terminateOrchestration(ids[0], terminateOptions({ output: "felled", recursive: true }));
  for (const id of ids) {
    const state = await scheduler.client.getOrchestrationState(id);
    assertStatus(state, "TERMINATED");
    assert.equal(state.serializedOutput, '"felled"', "every descendant ends with the same output");
  }
});

test("a terminate that is not recursive leaves the children running (S-7.8, S-9.8)", async () => {
  const [root, ...others] = await plantTree();
  await scheduler.client.terminateOrchestration(root, terminateOptions({ output: "alone", recursive: false }));
  assertStatus(await scheduler.client.getOrchestrationState(root), "TERMINATED");
  for (const id of others) {
    assertStatus(await scheduler.client.getOrchestrationState(id), "RUNNING");
  }
  await Promise.all(others.filter((id) => /\.\d\.\d$/.test(id)).map((id) => scheduler.client.raiseOrchestrationEvent(id, "go")));
  await Promise.all(others.map(async (id) => assertStatus(await scheduler.finished(id), "COMPLETED")));
  assertStatus(await scheduler.client.getOrchestrationState(root), "TERMINATED");
});

test("a recursive purge takes finished descendants along, and a plain one takes one instance (S-11.19)", async () => {
  const ids = await plantTree();
  await scheduler.client.terminateOrchestration(ids[0], terminateOptions({ recursive: true }));
  const branch = ids[1];
  assert.equal((await scheduler.client.purgeOrchestration(branch, { recursive: false })).deletedInstanceCount, 1);
  assert.equal(await scheduler.client.getOrchestrationState(branch), undefined);
  assertStatus(await scheduler.client.getOrchestrationState(`${branch}.0`), "TERMINATED");

  // The missing branch hides its own children: three are left below the root, and the root itself.
  assert.equal((await scheduler.client.purgeOrchestration(ids[0], { recursive: true })).deletedInstanceCount, 4);
  assertStatus(await scheduler.client.getOrchestrationState(`${branch}.0`), "TERMINATED");
  assert.equal(await scheduler.client.getOrchestrationState(ids[2]), undefined);
});

const startsAndLeaves = scheduler.orchestrator("startsAndLeaves", async (context, childId) => {
  context.callSubOrchestrator(waits, undefined, { instanceId: childId });
  return "left";
});

test("a child created as its parent completes starts anyway, and nobody hears of its end (S-7.7)", async () => {
  const childId = newId("orphan");
  const parent = await scheduler.run(startsAndLeaves, childId);
  assert.equal(output(parent), "left");
  assert.ok(await scheduler.client.getOrchestrationState(childId), "the child is there as soon as the parent has ended (S-0.6)");
  await scheduler.client.raiseOrchestrationEvent(childId, "go", "grown up");
  assert.equal(output(await scheduler.finished(childId)), "grown up");
  assert.deepEqual(await scheduler.client.getOrchestrationState(parent.instanceId), parent);
});
