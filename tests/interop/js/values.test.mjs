// Inputs, outputs, custom status and tags, with their limits: the values that travel through the scheduler.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Scheduler, assertStatus, failsWith, newId, output } from "./scheduler.mjs";

/** The payload limit that the server has by default, in bytes of one string value (S-14.2). */
const PAYLOAD_BYTES_MAX = 1_048_576;

/** A string whose JSON text, with its two quotes, takes so many bytes. */
const stringOfJsonBytes = (bytes) => "x".repeat(bytes - 2);

const scheduler = new Scheduler();

before(() => scheduler.start());
after(() => scheduler.stop());

const echo = scheduler.activity("echo", (_context, value) => value);

const roundTrip = scheduler.orchestrator("roundTrip", async function* (context, value) {
  return yield context.callActivity(echo, value);
});

const waitFor = scheduler.orchestrator("waitFor", async function* (context, name) {
  return yield context.waitForExternalEvent(name);
});

test("unicode and control characters survive input, activity and output unchanged (S-0.5)", async () => {
  const value = {
    "ключ 🔑": "Grüße, 世界, مرحبا, 👩‍👩‍👧‍👦, e\u0301 is not \u00e9",
    control: "tab\t nul\u0000 line\n quote\" backslash\\ mark\ufeff separator\u2028",
    "": ["", " ", "  padded  ", null, 0, false, -0.5e-9],
  };
  const state = await scheduler.run(roundTrip, value);
  assert.deepEqual(output(state), value);
  assert.equal(state.serializedInput, JSON.stringify(value));
});

test("unicode works in ids, event names and tags (S-8.1, S-10.1, S-2.8)", async () => {
  const id = newId("Übung-订单-🐢");
  await scheduler.client.scheduleNewOrchestration(waitFor, "größe", { instanceId: id, tags: { größe: "大" } });
  await scheduler.client.raiseOrchestrationEvent(id, "größe", "ß");
  const state = await scheduler.finished(id);
  assert.equal(output(state), "ß");
  assert.deepEqual(state.tags, { größe: "大" });
});

const inputKind = scheduler.orchestrator("inputKind", async (_context, value) =>
  typeof value === "string" ? `string of ${value.length}` : `${value}`,
);

test("null and the empty string are inputs of their own (S-0.5)", async () => {
  const nothing = await scheduler.run(inputKind, null);
  const empty = await scheduler.run(inputKind, "");
  assert.deepEqual([nothing, empty].map(output), ["null", "string of 0"]);
  assert.equal(nothing.serializedInput, "null");
  assert.equal(empty.serializedInput, '""');
});

test("a payload of 1,000,000 bytes passes through input, activity, event and output (S-14.2)", async () => {
  const large = stringOfJsonBytes(1_000_000);
  assert.equal(output(await scheduler.run(roundTrip, large)), large);

  const id = await scheduler.client.scheduleNewOrchestration(waitFor, "large");
  await scheduler.client.raiseOrchestrationEvent(id, "large", large);
  assert.equal(output(await scheduler.finished(id)), large);
});

test("an input of exactly the limit is taken, and one byte more is refused naming both sizes (S-14.3)", async () => {
  assertStatus(await scheduler.run(roundTrip, stringOfJsonBytes(PAYLOAD_BYTES_MAX)), "COMPLETED");

  const id = newId("oversize");
  await assert.rejects(
    scheduler.client.scheduleNewOrchestration(roundTrip, stringOfJsonBytes(PAYLOAD_BYTES_MAX + 1), id),
    failsWith("INVALID_ARGUMENT", /(?=.*1048576)(?=.*1048577)/s),
  );
  assert.equal(await scheduler.client.getOrchestrationState(id), undefined);
});

test("the limit counts bytes of UTF-8, not characters (S-14.2)", async () => {
  const twoBytesEach = "é".repeat(PAYLOAD_BYTES_MAX / 2);
  await assert.rejects(scheduler.client.scheduleNewOrchestration(roundTrip, twoBytesEach), failsWith("INVALID_ARGUMENT"));
});

test("an oversize event is refused and its target goes on waiting (S-8.9)", async () => {
  const id = await scheduler.client.scheduleNewOrchestration(waitFor, "answer");
  await assert.rejects(
    scheduler.client.raiseOrchestrationEvent(id, "answer", stringOfJsonBytes(PAYLOAD_BYTES_MAX + 1)),
    failsWith("INVALID_ARGUMENT", /(?=.*1048576)(?=.*1048577)/s),
  );
  await scheduler.client.raiseOrchestrationEvent(id, "answer", "small");
  assert.equal(output(await scheduler.finished(id)), "small");
});

const inflate = scheduler.activity("inflate", (_context, bytes) => stringOfJsonBytes(bytes));

const inflateAndCatch = scheduler.orchestrator("inflateAndCatch", async function* (context, bytes) {
  try {
    const inflated = yield context.callActivity(inflate, bytes);
    return inflated.length;
  } catch (error) {
    return error.details.errorType;
  }
});

test("an activity result of one byte over the limit becomes a failed task (S-14.4)", async () => {
  assert.equal(output(await scheduler.run(inflateAndCatch, PAYLOAD_BYTES_MAX)), PAYLOAD_BYTES_MAX - 2);
  assert.equal(output(await scheduler.run(inflateAndCatch, PAYLOAD_BYTES_MAX + 1)), "PayloadTooLarge");
});

const oversizeOutput = scheduler.orchestrator("oversizeOutput", async (_context, bytes) => stringOfJsonBytes(bytes));

test("an output of one byte over the limit fails the orchestration instead of retrying for ever (S-14.4)", async () => {
  const state = await scheduler.run(oversizeOutput, PAYLOAD_BYTES_MAX + 1);
  assertStatus(state, "FAILED");
  assert.equal(state.failureDetails.errorType, "PayloadTooLarge");
});

// An activity is handed out after its episode is committed, so it sees what the episode reported.
const readCustomStatus = scheduler.activity("readCustomStatus", async (context) => {
  const state = await scheduler.client.getOrchestrationState(context.orchestrationId);
  return state.serializedCustomStatus ?? "none";
});

const reporter = scheduler.orchestrator("reporter", async function* (context, reports) {
  const seen = [];
  for (const report of reports) {
    context.setCustomStatus(report);
    seen.push(yield context.callActivity(readCustomStatus));
  }
  return seen;
});

test("custom status is visible while running, can be cleared, and an empty JSON string is a value (S-3.23, S-3.25)", async () => {
  const reports = [{ progress: 0.5 }, "halfway", "", null, [1, 2]];
  const state = await scheduler.run(reporter, reports);
  assert.deepEqual(output(state), ['{"progress":0.5}', '"halfway"', '""', "none", "[1,2]"]);
  assert.equal(state.serializedCustomStatus, "[1,2]");
});

const failsWhileReporting = scheduler.orchestrator("failsWhileReporting", async (context) => {
  context.setCustomStatus("about to fail");
  throw new Error("as announced");
});

test("custom status, input, output and failure details come only when asked for (S-11.2)", async () => {
  const completed = await scheduler.run(reporter, ["x"]);
  const bareCompleted = await scheduler.client.getOrchestrationState(completed.instanceId, false);
  assertStatus(bareCompleted, "COMPLETED");
  assert.equal(bareCompleted.serializedInput, undefined);
  assert.equal(bareCompleted.serializedOutput, undefined);
  assert.equal(bareCompleted.serializedCustomStatus, undefined);

  const failed = await scheduler.run(failsWhileReporting);
  assert.equal(failed.serializedCustomStatus, '"about to fail"');
  assert.equal(failed.failureDetails.message, "as announced");
  const bareFailed = await scheduler.client.getOrchestrationState(failed.instanceId, false);
  assert.equal(bareFailed.failureDetails, undefined);
});

const tagged = scheduler.orchestrator("tagged", async function* (context) {
  yield context.callActivity(echo, 1, { tags: { step: "one" } });
  yield context.callSubOrchestrator(roundTrip, 2, { instanceId: `${context.instanceId}-child`, tags: { step: "two" } });
});

test("tags reach instances, tasks and children, and need no payload flag (S-2.8, S-4.10, S-7.2)", async () => {
  const id = newId("tagged");
  await scheduler.run(tagged, undefined, { instanceId: id, tags: { team: "blue", tier: "" } });
  const state = await scheduler.client.getOrchestrationState(id, false);
  assert.deepEqual(state.tags, { team: "blue", tier: "" });

  const history = await scheduler.client.getOrchestrationHistory(id);
  const tagsOf = (type) => history.find((event) => event.type === type).tags;
  assert.deepEqual(tagsOf("ExecutionStarted"), { team: "blue", tier: "" });
  assert.deepEqual(tagsOf("TaskScheduled"), { step: "one" });
  assert.deepEqual(tagsOf("SubOrchestrationInstanceCreated"), { step: "two" });
  const child = await scheduler.client.getOrchestrationState(`${id}-child`, false);
  assert.deepEqual(child.tags, { step: "two" });
});

test("times of creation and update are kept finer than milliseconds and never run backwards (S-2.7, S-2.11)", async () => {
  const states = await Promise.all(Array.from({ length: 20 }, () => scheduler.run(roundTrip, 1)));
  const wireStates = await Promise.all(states.map((state) => scheduler.wireState(state.instanceId)));
  for (const state of wireStates) {
    const created = state.getCreatedtimestamp();
    const completed = state.getCompletedtimestamp();
    assert.ok(completed.toDate() >= created.toDate());
    assert.ok(state.getLastupdatedtimestamp().toDate() >= completed.toDate());
  }
  assert.ok(
    wireStates.some((state) => state.getCreatedtimestamp().getNanos() % 1_000_000 !== 0),
    "created times are cut to milliseconds",
  );
});
