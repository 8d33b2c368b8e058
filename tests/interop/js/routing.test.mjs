// Which worker gets what: task hubs, work-item filters and versions.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import { Scheduler, assertStatus, failsWith, newId, output } from "./scheduler.mjs";

const { VersionFailureStrategy, VersionMatchStrategy } = durabletask;
const scheduler = new Scheduler(["--task-hubs", "default,second"]);
const onDemand = new Scheduler(["--dynamic-task-hubs"]);

before(() => Promise.all([scheduler.start({ withWorker: false }), onDemand.start({ withWorker: false })]));
after(() => Promise.all([scheduler.stop(), onDemand.stop()]));

const whoami = (context) => context.orchestrationId;
scheduler.activity("whoami", whoami);
onDemand.activity("whoami", whoami);

const callsActivity = async function* (context, name) {
  return { version: context.version, result: yield context.callActivity(name) };
};
scheduler.orchestrator("callsActivity", callsActivity);
onDemand.orchestrator("callsActivity", callsActivity);

/** Registers an activity and an orchestrator of one test's own, so that only its own workers can run them. */
function register(prefix) {
  const activity = scheduler.activity(`${prefix}Activity`, whoami);
  return { activity, orchestrator: scheduler.orchestrator(`${prefix}Orchestrator`, callsActivity) };
}

// ---- task hubs ----

test("hubs are isolated: the same id is another instance in each, run by that hub's worker (S-1.6)", async () => {
  const { activity, orchestrator } = register("hubs");
  const only = { orchestrators: [orchestrator], activities: [activity], filters: "auto" };
  await scheduler.startWorker({ ...only, hub: "second" });
  const second = scheduler.newClient({ hub: "second" });
  const id = newId("twin");
  await scheduler.client.scheduleNewOrchestration(orchestrator, activity, id);
  await second.scheduleNewOrchestration(orchestrator, activity, { instanceId: id, tags: { hub: "second" } });

  const twin = await second.waitForOrchestrationCompletion(id, true, 30);
  assert.equal(output(twin).result, id);
  assert.deepEqual(twin.tags, { hub: "second" });
  assertStatus(await scheduler.client.getOrchestrationState(id), "PENDING");

  await scheduler.startWorker(only);
  assert.equal(output(await scheduler.finished(id)).result, id);
  const found = [];
  for await (const state of second.getAllInstances()) {
    found.push(state.instanceId);
  }
  assert.deepEqual(found, [id]);
  assert.equal((await second.purgeOrchestration(id)).deletedInstanceCount, 1);
  assertStatus(await scheduler.client.getOrchestrationState(id), "COMPLETED");
});

test("hub names ignore case, and the default hub can be named (S-1.6)", async () => {
  const id = await scheduler.newClient({ hub: "SECOND" }).scheduleNewOrchestration("nobodyRunsThis");
  assertStatus(await scheduler.newClient({ hub: "second" }).getOrchestrationState(id), "PENDING");
  const inDefault = await scheduler.newClient({ hub: "Default" }).scheduleNewOrchestration("nobodyRunsThis");
  assertStatus(await scheduler.client.getOrchestrationState(inDefault), "PENDING");
});

test("an unknown hub is not found, by name, on every call (S-1.7)", async () => {
  const stranger = scheduler.newClient({ hub: "third" });
  const refused = failsWith("NOT_FOUND", /third/);
  await assert.rejects(stranger.scheduleNewOrchestration("hello"), refused);
  await assert.rejects(stranger.getOrchestrationState("any"), refused);
  await assert.rejects(stranger.raiseOrchestrationEvent("any", "event"), refused);
  await assert.rejects(stranger.getAllInstances().asPages()[Symbol.asyncIterator]().next(), refused);
});

test("hubs on demand treat an unknown hub as an empty one (S-1.16)", async () => {
  const client = onDemand.newClient({ hub: "fresh" });
  assert.equal(await client.getOrchestrationState("any"), undefined);
  await onDemand.startWorker({ hub: "fresh" });
  const id = await client.scheduleNewOrchestration("callsActivity", "whoami");
  assert.equal(output(await client.waitForOrchestrationCompletion(id, true, 30)).result, id);
});

// ---- filters ----

test("a filtering worker gets only what it lists, and the rest waits for another worker (S-13.9, S-13.12, S-2.5)", async () => {
  const first = register("listed");
  const other = register("unlisted");
  await scheduler.startWorker({
    orchestrators: [first.orchestrator],
    activities: [first.activity],
    filters: "auto",
  });
  const waiting = await scheduler.client.scheduleNewOrchestration(other.orchestrator, other.activity);
  // The listed instance was started later and ends first: the unlisted one neither ran nor blocked it.
  const state = await scheduler.run(first.orchestrator, first.activity);
  assert.equal(output(state).result, state.instanceId);
  assertStatus(await scheduler.client.getOrchestrationState(waiting), "PENDING");

  await scheduler.startWorker({ orchestrators: [other.orchestrator], activities: [other.activity], filters: "auto" });
  assert.equal(output(await scheduler.finished(waiting)).result, waiting);
});

test("one worker can run the orchestrators and another one the activities (S-13.9)", async () => {
  const { activity, orchestrator } = register("split");
  await scheduler.startWorker({ orchestrators: [orchestrator], activities: [], filters: "auto" });
  const id = await scheduler.client.scheduleNewOrchestration(orchestrator, activity);
  assertStatus(await scheduler.started(id), "RUNNING");
  await scheduler.startWorker({ orchestrators: [], activities: [activity], filters: "auto" });
  assert.equal(output(await scheduler.finished(id)).result, id);
});

test("filters match names without case (S-13.11)", async () => {
  const { activity, orchestrator } = register("case");
  const filters = { orchestrations: [{ name: orchestrator.toUpperCase() }], activities: [{ name: activity.toLowerCase() }] };
  await scheduler.startWorker({ orchestrators: [orchestrator], activities: [activity], filters });
  const state = await scheduler.run(orchestrator, activity);
  assert.equal(output(state).result, state.instanceId);
});

test("a filter message without entries means everything (S-13.9)", async () => {
  await onDemand.startWorker({ hub: "everything", filters: {} });
  const client = onDemand.newClient({ hub: "everything" });
  const id = await client.scheduleNewOrchestration("callsActivity", "whoami");
  assert.equal(output(await client.waitForOrchestrationCompletion(id, true, 30)).result, id);
});

test("filters end with their stream (S-13.13)", async () => {
  const { activity, orchestrator } = register("gone");
  const only = { orchestrators: [orchestrator], activities: [activity], filters: "auto" };
  const worker = await scheduler.startWorker(only);
  assertStatus(await scheduler.run(orchestrator, activity), "COMPLETED");
  await scheduler.stopWorker(worker);
  const id = await scheduler.client.scheduleNewOrchestration(orchestrator, activity);
  assertStatus(await scheduler.client.getOrchestrationState(id), "PENDING");
  await scheduler.startWorker(only);
  assert.equal(output(await scheduler.finished(id)).result, id);
});

// ---- versions ----

test("an instance's version reaches the orchestrator, and a client's default applies otherwise (S-16.1, S-16.2)", async () => {
  const { activity, orchestrator } = register("versions");
  await scheduler.startWorker({ orchestrators: [orchestrator], activities: [activity], filters: "auto" });
  assert.equal(output(await scheduler.run(orchestrator, activity, { version: "1.2.3" })).version, "1.2.3");
  assert.equal(output(await scheduler.run(orchestrator, activity)).version, "");
  const client = scheduler.newClient({ defaultVersion: "2.0.0" });
  const id = await client.scheduleNewOrchestration(orchestrator, activity);
  assert.equal(output(await scheduler.finished(id)).version, "2.0.0");
  assert.equal((await scheduler.wireState(id)).getVersion().getValue(), "2.0.0");
});

/** A worker's settings for one version of a test's orchestrator and activity. */
function strict({ activity, orchestrator }, version, failureStrategy, filters) {
  const versioning = { version, matchStrategy: VersionMatchStrategy.Strict, failureStrategy };
  return { orchestrators: [orchestrator], activities: [activity], filters, versioning };
}

test("strict filters leave other versions, and none, to their own worker (S-13.11, S-16.5)", async () => {
  const names = register("strictFilter");
  await scheduler.startWorker(strict(names, "1.0.0", VersionFailureStrategy.Reject, "auto"));
  const newer = await scheduler.client.scheduleNewOrchestration(names.orchestrator, names.activity, { version: "2.0.0" });
  const unversioned = await scheduler.client.scheduleNewOrchestration(names.orchestrator, names.activity);
  const state = await scheduler.run(names.orchestrator, names.activity, { version: "1.0.0" });
  assert.equal(output(state).version, "1.0.0");
  assertStatus(await scheduler.client.getOrchestrationState(newer), "PENDING");
  assertStatus(await scheduler.client.getOrchestrationState(unversioned), "PENDING");

  await scheduler.startWorker(strict(names, "2.0.0", VersionFailureStrategy.Reject, "auto"));
  assert.equal(output(await scheduler.finished(newer)).version, "2.0.0");
  assertStatus(await scheduler.client.getOrchestrationState(unversioned), "PENDING");
  await scheduler.client.terminateOrchestration(unversioned);
});

test("a worker that rejects a version hands the item back, and a matching worker takes it (S-13.17)", async () => {
  const names = register("reject");
  const filters = { orchestrations: [{ name: names.orchestrator }], activities: [{ name: names.activity }] };
  const old = await scheduler.startWorker(strict(names, "1.0.0", VersionFailureStrategy.Reject, filters));
  const newer = await scheduler.client.scheduleNewOrchestration(names.orchestrator, names.activity, { version: "2.0.0" });
  const state = await scheduler.run(names.orchestrator, names.activity, { version: "1.0.0" });
  assert.equal(output(state).version, "1.0.0", "the rejected item does not block the others");
  assertStatus(await scheduler.client.getOrchestrationState(newer), "PENDING");

  await scheduler.startWorker(strict(names, "2.0.0", VersionFailureStrategy.Reject, filters));
  await scheduler.stopWorker(old);
  assert.equal(output(await scheduler.finished(newer)).version, "2.0.0");
});

test("a worker that fails a version ends the instance with that failure (S-16.3)", async () => {
  const names = register("failVersion");
  const filters = { orchestrations: [{ name: names.orchestrator }] };
  await scheduler.startWorker(strict(names, "1.0.0", VersionFailureStrategy.Fail, filters));
  const state = await scheduler.run(names.orchestrator, names.activity, { version: "2.0.0" });
  assertStatus(state, "FAILED");
  assert.equal(state.failureDetails.errorType, "VersionMismatch");
});

test("an activity without a version of its own is matched by its orchestration's (S-13.11)", async () => {
  const names = register("inherited");
  await scheduler.startWorker({
    orchestrators: [names.orchestrator],
    activities: [],
    filters: { orchestrations: [{ name: names.orchestrator }] },
  });
  await scheduler.startWorker({
    orchestrators: [],
    activities: [names.activity],
    filters: { activities: [{ name: names.activity, versions: ["3.0"] }] },
  });
  const other = await scheduler.client.scheduleNewOrchestration(names.orchestrator, names.activity, { version: "4.0" });
  const state = await scheduler.run(names.orchestrator, names.activity, { version: "3.0" });
  assert.equal(output(state).result, state.instanceId);
  assertStatus(await scheduler.started(other), "RUNNING");
  await scheduler.client.terminateOrchestration(other);
});
