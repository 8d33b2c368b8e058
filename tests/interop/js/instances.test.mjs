// Ids and their re-use, queries and pages, history and purge: the instances as a store of records.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import { Scheduler, assertStatus, failsWith, newId, output, text, wire } from "./scheduler.mjs";

const { OrchestrationStatus, PurgeInstanceCriteria } = durabletask;
const { COMPLETED, FAILED, PENDING, RUNNING, SUSPENDED, TERMINATED } = OrchestrationStatus;
const EVERY_STATUS = [RUNNING, COMPLETED, FAILED, TERMINATED, PENDING, SUSPENDED];

const scheduler = new Scheduler();

before(() => scheduler.start());
after(() => scheduler.stop());

const hello = scheduler.orchestrator("hello", async (_context, name) => `hello ${name}`);
const waits = scheduler.orchestrator("waits", async function* (context) {
  return yield context.waitForExternalEvent("go");
});
const fails = scheduler.orchestrator("fails", async () => {
  throw new Error("on purpose");
});

/** Starts an instance that runs and waits. */
async function startWaiting(id = newId("waiting")) {
  await scheduler.client.scheduleNewOrchestration(waits, undefined, id);
  await scheduler.started(id);
  return id;
}

/** Starts an instance by the wire, with a reuse policy, which this SDK's client has no option for. */
async function startWithPolicy(id, name, input, replaceable) {
  const request = new wire.CreateInstanceRequest();
  request.setInstanceid(id);
  request.setName(name);
  request.setInput(text(JSON.stringify(input)));
  const policy = new wire.OrchestrationIdReusePolicy();
  policy.setReplaceablestatusList(replaceable);
  request.setOrchestrationidreusepolicy(policy);
  return (await scheduler.call("startInstance", request)).getInstanceid();
}

// ---- ids ----

test("an id of 100 characters is taken, and a longer one is refused naming the limit (S-10.1)", async () => {
  const id = `${"i".repeat(64)}${randomUUID()}`;
  assert.equal(id.length, 100);
  assert.equal(output(await scheduler.run(hello, "you", id)), "hello you");
  await assert.rejects(scheduler.client.scheduleNewOrchestration(hello, "you", `${id}x`), failsWith("INVALID_ARGUMENT", /100/));
});

test("ids of entities, control characters and empty names are refused (S-10.1)", async () => {
  for (const id of ["@counter@a", "line\nbreak", "nul\u0000"]) {
    await assert.rejects(scheduler.client.scheduleNewOrchestration(hello, "you", id), failsWith("INVALID_ARGUMENT"));
  }
  await assert.rejects(scheduler.client.scheduleNewOrchestration("", "you"), failsWith("INVALID_ARGUMENT"));
});

test("an empty id gets 32 hex digits from the server (S-10.1, S-10.6)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(hello, "you", "");
  assert.match(id, /^[0-9a-f]{32}$/);
  assert.equal(output(await scheduler.finished(id)), "hello you");
});

test("ids are case-sensitive (S-10.1)", async () => {
  const id = newId("Case");
  await scheduler.run(hello, "big", id);
  assert.equal(await scheduler.client.getOrchestrationState(id.toLowerCase()), undefined);
});

test("an unknown id has no state and no history, which is no error (S-11.1, S-3.28)", async () => {
  assert.equal(await scheduler.client.getOrchestrationState(newId("nobody")), undefined);
  assert.deepEqual(await scheduler.client.getOrchestrationHistory(newId("nobody")), []);
  await assert.rejects(scheduler.wireHistory(newId("nobody")), failsWith("NOT_FOUND"));
});

test("a wait for an instance that does not exist yet ends when it comes and completes (S-11.6)", async () => {
  const id = newId("awaited");
  const waiting = scheduler.finished(id);
  await scheduler.client.scheduleNewOrchestration(hello, "at last", id);
  assert.equal(output(await waiting), "hello at last");
});

// ---- re-use of ids ----

test("an active id is refused and a finished one replaced when no policy is given (S-10.3, S-10.4)", async () => {
  const id = await startWaiting();
  await assert.rejects(
    scheduler.client.scheduleNewOrchestration(hello, "you", id),
    failsWith("ALREADY_EXISTS", /orchestration instance already exists/),
  );
  await scheduler.client.raiseOrchestrationEvent(id, "go", "first");
  const first = await scheduler.finished(id);
  assert.equal(output(first), "first");

  const second = await scheduler.run(hello, "second", id);
  assert.equal(output(second), "hello second");
  assert.equal(second.name, "hello");
  assert.ok(second.createdAt >= first.createdAt);
  assert.equal((await scheduler.historyTypes(id)).includes("EventRaised"), false, "the old history is gone (S-10.5)");
});

test("of twenty starts with one id at the same moment exactly one wins (S-10.3)", async () => {
  const id = newId("contended");
  const starts = await Promise.allSettled(
    Array.from({ length: 20 }, () => scheduler.client.scheduleNewOrchestration(waits, undefined, id)),
  );
  const refused = starts.filter((start) => start.status === "rejected");
  assert.equal(refused.length, 19);
  refused.forEach((start) => failsWith("ALREADY_EXISTS")(start.reason));
  await scheduler.client.terminateOrchestration(id);
});

test("a policy replaces only the statuses it lists (S-10.3)", async () => {
  const { instanceId } = await scheduler.run(hello, "you");
  await assert.rejects(startWithPolicy(instanceId, hello, "again", [FAILED, TERMINATED]), failsWith("ALREADY_EXISTS"));
  await assert.rejects(startWithPolicy(instanceId, hello, "again", []), failsWith("ALREADY_EXISTS"));
  assert.equal(output(await scheduler.finished(instanceId)), "hello you");
  assert.equal(await startWithPolicy(instanceId, hello, "again", [COMPLETED]), instanceId);
  assert.equal(output(await scheduler.finished(instanceId)), "hello again");
});

test("a policy that lists every status replaces a running instance (S-10.3)", async () => {
  const id = await startWaiting();
  await startWithPolicy(id, hello, "instead", EVERY_STATUS);
  assert.equal(output(await scheduler.finished(id)), "hello instead");
});

test("a policy may not replace running instances without listing TERMINATED (S-10.3)", async () => {
  const id = await startWaiting();
  await assert.rejects(
    startWithPolicy(id, hello, "instead", [RUNNING, COMPLETED]),
    failsWith(
      "INVALID_ARGUMENT",
      /Invalid reusable statuses: cannot exclude 'Terminated' while also allowing reuse of running instances/,
    ),
  );
  assertStatus(await scheduler.client.getOrchestrationState(id), "RUNNING");
  await scheduler.client.terminateOrchestration(id);
});

// ---- queries ----

async function all(filter) {
  const found = [];
  for await (const state of scheduler.client.getAllInstances(filter)) {
    found.push(state);
  }
  return found;
}

async function pages(filter, token, pageSize) {
  const found = [];
  for await (const page of scheduler.client.getAllInstances(filter).asPages(token, pageSize)) {
    found.push(page);
  }
  return found;
}

test("queries filter by prefix, status and creation time, all at once (S-11.9)", async () => {
  const prefix = newId("query");
  const ids = ["done", "failed", "waiting", "later"].map((kind) => `${prefix}-${kind}`);
  const from = (await scheduler.run(hello, "x", ids[0])).createdAt;
  await scheduler.run(fails, undefined, ids[1]);
  await startWaiting(ids[2]);
  const startAt = new Date(Date.now() + 3_600_000);
  await scheduler.client.scheduleNewOrchestration(hello, "y", { instanceId: ids[3], startAt });

  const idsOf = async (filter) => (await all({ instanceIdPrefix: prefix, ...filter })).map((state) => state.instanceId);
  assert.deepEqual(await idsOf({}), ids, "the order is that of creation (S-11.11)");
  assert.deepEqual(await idsOf({ statuses: [COMPLETED] }), [ids[0]]);
  assert.deepEqual(await idsOf({ statuses: [FAILED, PENDING] }), [ids[1], ids[3]]);
  assert.deepEqual(await idsOf({ statuses: [RUNNING] }), [ids[2]]);
  assert.deepEqual(await idsOf({ statuses: [TERMINATED] }), []);
  assert.deepEqual(await idsOf({ createdFrom: from }), ids);
  assert.deepEqual(await idsOf({ createdTo: new Date(from.getTime() - 1) }), []);
  assert.deepEqual(await idsOf({ createdFrom: new Date(Date.now() + 60_000) }), []);
  assert.deepEqual(await idsOf({ taskHubNames: ["default"] }), ids);
  assert.deepEqual(await idsOf({ taskHubNames: ["another"] }), []);
  assert.deepEqual(await idsOf({ instanceIdPrefix: prefix.toUpperCase() }), []);
  assert.deepEqual(await idsOf({ instanceIdPrefix: prefix, statuses: [COMPLETED], createdTo: new Date() }), [ids[0]]);
  await Promise.all([ids[2], ids[3]].map((id) => scheduler.client.terminateOrchestration(id)));
});

test("a query gives payloads only when asked for, and failure details with them (S-11.13)", async () => {
  const prefix = newId("payload");
  await scheduler.run(hello, "you", `${prefix}-a`);
  await scheduler.run(fails, "why", `${prefix}-b`);
  const [bare, bareFailed] = await all({ instanceIdPrefix: prefix });
  assert.equal(bare.serializedInput, undefined);
  assert.equal(bare.serializedOutput, undefined);
  assert.equal(bareFailed.failureDetails, undefined);
  const [full, fullFailed] = await all({ instanceIdPrefix: prefix, fetchInputsAndOutputs: true });
  assert.equal(full.serializedInput, '"you"');
  assert.equal(full.serializedOutput, '"hello you"');
  assert.equal(fullFailed.failureDetails.message, "on purpose");
});

test("21 instances make five pages of five, and paging resumes with another size (S-11.10, S-11.12)", async () => {
  const prefix = newId("pages");
  await Promise.all(Array.from({ length: 21 }, (_, index) => scheduler.run(hello, index, `${prefix}-${index}`)));
  const found = await pages({ instanceIdPrefix: prefix }, undefined, 5);
  assert.deepEqual(
    found.map((page) => page.values.length),
    [5, 5, 5, 5, 1],
  );
  assert.deepEqual(
    found.map((page) => page.hasMoreResults),
    [true, true, true, true, false],
  );
  const ids = found.flatMap((page) => page.values.map((state) => state.instanceId));
  assert.equal(new Set(ids).size, 21);

  const rest = await pages({ instanceIdPrefix: prefix }, found[1].continuationToken, 8);
  assert.deepEqual(
    rest.map((page) => page.values.length),
    [8, 3],
  );
  assert.deepEqual(
    rest.flatMap((page) => page.values.map((state) => state.instanceId)),
    ids.slice(10),
  );
});

test("a forged continuation token is refused (S-11.12)", async () => {
  await assert.rejects(pages({}, "no such token", 5), failsWith("INVALID_ARGUMENT"));
});

test("a thousand instances are found page by page, once each, by query and by list (S-11.10, S-11.14 to S-11.17)", async () => {
  const prefix = newId("thousand");
  const expected = new Set();
  const completedFrom = new Date(Date.now() - 1);
  for (let batch = 0; batch < 10; batch++) {
    const started = Array.from({ length: 100 }, (_, index) => {
      const id = `${prefix}-${batch * 100 + index}`;
      expected.add(id);
      return scheduler.run(hello, index, id);
    });
    await Promise.all(started);
  }

  const found = await pages({ instanceIdPrefix: prefix }, undefined, 100);
  assert.deepEqual(found.map((page) => page.values.length), Array.from({ length: 10 }, () => 100));
  assert.equal(found.at(-1).hasMoreResults, false, "a full last page carries no token (S-11.12)");
  const states = found.flatMap((page) => page.values);
  assert.deepEqual(new Set(states.map((state) => state.instanceId)), expected);
  for (let index = 1; index < states.length; index++) {
    assert.ok(states[index].createdAt >= states[index - 1].createdAt, "the order is that of creation (S-11.11)");
  }

  const listed = [];
  let lastInstanceKey;
  for (;;) {
    const page = await scheduler.client.listInstanceIds({
      runtimeStatus: [COMPLETED],
      completedTimeFrom: completedFrom,
      pageSize: 128,
      lastInstanceKey,
    });
    if (page.values.length === 0) {
      assert.equal(page.continuationToken, undefined, "an empty page carries no key (S-11.17)");
      break;
    }
    assert.ok(page.continuationToken, "every page with instances carries a key, also the last one (S-11.17)");
    listed.push(...page.values);
    lastInstanceKey = page.continuationToken;
  }
  assert.equal(new Set(listed).size, listed.length);
  assert.deepEqual(new Set(listed.filter((id) => id.startsWith(prefix))), expected);
});

test("a list goes by completion time, of terminal instances alone (S-11.14, S-11.15)", async () => {
  const first = await startWaiting();
  const second = await startWaiting();
  const open = await startWaiting();
  const completedTimeFrom = new Date();
  await scheduler.client.raiseOrchestrationEvent(second, "go");
  await scheduler.finished(second);
  await scheduler.client.terminateOrchestration(first);
  const page = await scheduler.client.listInstanceIds({ completedTimeFrom });
  assert.deepEqual([...page.values], [second, first]);
  const terminated = await scheduler.client.listInstanceIds({ completedTimeFrom, runtimeStatus: [TERMINATED] });
  assert.deepEqual([...terminated.values], [first]);
  const none = await scheduler.client.listInstanceIds({ completedTimeTo: new Date(2001, 1, 1) });
  assert.deepEqual([...none.values], []);
  await scheduler.client.terminateOrchestration(open);
});

// ---- history ----

const echo = scheduler.activity("echo", (_context, value) => value);
const oneOfEach = scheduler.orchestrator("oneOfEach", async function* (context) {
  const value = yield context.callActivity(echo, "activity");
  yield context.createTimer(0.01);
  yield context.callSubOrchestrator(hello, value);
  return "done";
});

test("an activity, a timer and a child leave exactly these twelve events (S-3.7, S-3.10, S-3.13)", async () => {
  const { instanceId } = await scheduler.run(oneOfEach, "start");
  const history = await scheduler.client.getOrchestrationHistory(instanceId);
  assert.deepEqual(
    history.map((event) => [event.type, event.eventId]),
    [
      ["OrchestratorStarted", -1],
      ["ExecutionStarted", 0],
      ["TaskScheduled", 1],
      ["OrchestratorStarted", -1],
      ["TaskCompleted", -1],
      ["TimerCreated", 2],
      ["OrchestratorStarted", -1],
      ["TimerFired", -1],
      ["SubOrchestrationInstanceCreated", 3],
      ["OrchestratorStarted", -1],
      ["SubOrchestrationInstanceCompleted", -1],
      ["ExecutionCompleted", 4],
    ],
  );
  const [, started, scheduled, , completed, timer, , fired, created, , childCompleted, ended] = history;
  assert.equal(started.input, '"start"');
  assert.equal(started.orchestrationInstance.instanceId, instanceId);
  assert.equal(scheduled.name, "echo");
  assert.equal(scheduled.input, '"activity"');
  assert.equal(completed.taskScheduledId, 1);
  assert.equal(completed.result, '"activity"');
  assert.equal(fired.timerId, 2);
  assert.deepEqual(fired.fireAt, timer.fireAt);
  assert.equal(created.name, "hello");
  assert.equal(childCompleted.taskScheduledId, 3);
  assert.equal(childCompleted.result, '"hello activity"');
  assert.equal(ended.orchestrationStatus, "ORCHESTRATION_STATUS_COMPLETED");
  assert.equal(ended.result, '"done"');
  for (const event of await scheduler.wireHistory(instanceId)) {
    assert.ok(event.getTimestamp().getSeconds() > 0, "every event has a time");
  }
});

// Three megabytes of history in one episode, and no more: it ends without waiting for its activities.
const wide = scheduler.orchestrator("wide", async (context, width) => {
  for (let index = 0; index < width; index++) {
    context.callActivity(echo, "x".repeat(100_000));
  }
});

test("a history larger than a chunk arrives whole and in order (S-3.27)", async () => {
  const { instanceId } = await scheduler.run(wide, 30);
  const history = await scheduler.client.getOrchestrationHistory(instanceId);
  const scheduled = history.filter((event) => event.type === "TaskScheduled");
  assert.deepEqual(
    scheduled.map((event) => event.eventId),
    Array.from({ length: 30 }, (_, index) => index + 1),
  );
});

test("the history of another execution id is not found (S-3.27)", async () => {
  const { instanceId } = await scheduler.run(hello, "you");
  await assert.rejects(scheduler.wireHistory(instanceId, "0".repeat(32)), failsWith("NOT_FOUND"));
});

// ---- purge ----

test("a purged instance is gone with its history, and its id is free (S-11.18, S-11.24)", async () => {
  const { instanceId } = await scheduler.run(oneOfEach);
  assert.equal((await scheduler.client.purgeOrchestration(instanceId)).deletedInstanceCount, 1);
  assert.equal(await scheduler.client.getOrchestrationState(instanceId), undefined);
  assert.deepEqual(await scheduler.client.getOrchestrationHistory(instanceId), []);
  assert.deepEqual(await all({ instanceIdPrefix: instanceId }), []);
  assert.equal((await scheduler.client.purgeOrchestration(instanceId)).deletedInstanceCount, 0);
  assert.equal(output(await scheduler.run(hello, "again", instanceId)), "hello again");
});

test("an active instance is not purged (S-11.18)", async () => {
  const id = await startWaiting();
  await assert.rejects(scheduler.client.purgeOrchestration(id), failsWith("FAILED_PRECONDITION"));
  await scheduler.client.raiseOrchestrationEvent(id, "go", "still here");
  assert.equal(output(await scheduler.finished(id)), "still here");
});

test("a purge by filter takes terminal instances of the given time and status alone (S-11.20, S-11.22)", async () => {
  const marker = await scheduler.run(hello, "marker");
  const from = new Date(marker.createdAt.getTime() + 1);
  while (Date.now() <= from.getTime()) {
    await new Promise(setImmediate);
  }
  const done = await scheduler.run(hello, "you");
  const failed = await scheduler.run(fails);
  const active = await startWaiting();

  const criteria = new PurgeInstanceCriteria();
  criteria.setCreatedTimeFrom(from);
  criteria.setRuntimeStatusList([FAILED, RUNNING]);
  assert.equal((await scheduler.client.purgeOrchestration(criteria)).deletedInstanceCount, 1);
  assert.equal(await scheduler.client.getOrchestrationState(failed.instanceId), undefined);
  assertStatus(await scheduler.client.getOrchestrationState(active), "RUNNING");

  criteria.setRuntimeStatusList([]);
  assert.equal((await scheduler.client.purgeOrchestration(criteria)).deletedInstanceCount, 1);
  assert.equal(await scheduler.client.getOrchestrationState(done.instanceId), undefined);
  assertStatus(await scheduler.client.getOrchestrationState(marker.instanceId), "COMPLETED");
  await scheduler.client.terminateOrchestration(active);
});

test("a purge by filter says that it is complete (S-11.22)", async () => {
  const request = new wire.PurgeInstancesRequest();
  const batch = new wire.InstanceBatch();
  batch.setInstanceidsList([newId("nobody")]);
  request.setInstancebatch(batch);
  const response = await scheduler.call("purgeInstances", request);
  assert.equal(response.getDeletedinstancecount(), 0);
  assert.equal(response.getIscomplete().getValue(), true);
});
