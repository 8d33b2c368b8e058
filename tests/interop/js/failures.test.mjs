// How failures of activities, orchestrators, children and entity operations look to those who read them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import { Scheduler, assertStatus, output } from "./scheduler.mjs";

const { EntityInstanceId } = durabletask;
const scheduler = new Scheduler();

before(() => scheduler.start());
after(() => scheduler.stop());

/** An error with a cause that has a cause, each of a type of its own. */
function nestedError() {
  const named = (name, message, cause) => Object.assign(new Error(message, { cause }), { name });
  return named("ShipmentError", "could not ship", named("CarrierError", "no truck", named("WeatherError", "snow 雪")));
}

/** Checks wire failure details against `nestedError`, level by level. */
function assertNested(details) {
  for (const [type, message] of [
    ["ShipmentError", "could not ship"],
    ["CarrierError", "no truck"],
    ["WeatherError", "snow 雪"],
  ]) {
    assert.equal(details.getErrortype(), type);
    assert.equal(details.getErrormessage(), message);
    assert.match(details.getStacktrace().getValue(), /nestedError/);
    details = details.getInnerfailure();
  }
  assert.equal(details, undefined, "the innermost failure has no further one");
}

const ship = scheduler.activity("ship", () => {
  throw nestedError();
});

const shipAndCatch = scheduler.orchestrator("shipAndCatch", async function* (context) {
  try {
    yield context.callActivity(ship);
  } catch (error) {
    return { type: error.details.errorType, message: error.details.message, hasStack: error.details.stackTrace.length > 0 };
  }
});

test("an orchestrator can catch an activity's failure, and history keeps every inner one (S-5.3)", async () => {
  const state = await scheduler.run(shipAndCatch);
  assert.deepEqual(output(state), { type: "ShipmentError", message: "could not ship", hasStack: true });
  const failed = (await scheduler.wireHistory(state.instanceId)).find((event) => event.hasTaskfailed());
  assertNested(failed.getTaskfailed().getFailuredetails());
});

const shipOrFail = scheduler.orchestrator("shipOrFail", async function* (context) {
  yield context.callActivity(ship);
});

test("an activity's failure that nobody catches fails the orchestration (S-2.3, S-11.4)", async () => {
  const state = await scheduler.run(shipOrFail);
  assertStatus(state, "FAILED");
  assert.equal(state.failureDetails.errorType, "TaskFailedError");
  assert.match(state.failureDetails.message, /could not ship/);
  assert.equal(state.serializedOutput, undefined);
});

const failsItself = scheduler.orchestrator("failsItself", async () => {
  throw nestedError();
});

test("an orchestrator's own failure is kept with every inner one, in state and history (S-4.14)", async () => {
  const state = await scheduler.run(failsItself);
  assertStatus(state, "FAILED");
  assertNested((await scheduler.wireState(state.instanceId)).getFailuredetails());
  const last = (await scheduler.wireHistory(state.instanceId)).at(-1);
  assert.ok(last.hasExecutioncompleted(), "a terminal history ends with ExecutionCompleted (S-3.14)");
  assertNested(last.getExecutioncompleted().getFailuredetails());
});

const childFails = scheduler.orchestrator("childFails", async function* (context) {
  try {
    yield context.callSubOrchestrator(failsItself);
  } catch (error) {
    return { type: error.details.errorType, message: error.details.message };
  }
});

test("a child's failure reaches its parent unchanged, inner ones included (S-7.4)", async () => {
  const state = await scheduler.run(childFails);
  assert.deepEqual(output(state), { type: "ShipmentError", message: "could not ship" });
  const failed = (await scheduler.wireHistory(state.instanceId)).find((event) => event.hasSuborchestrationinstancefailed());
  assertNested(failed.getSuborchestrationinstancefailed().getFailuredetails());
});

const callsUnknown = scheduler.orchestrator("callsUnknown", async function* (context) {
  yield context.callActivity("nobodyRegisteredThis");
});

test("an unregistered activity fails its orchestration with the worker's own words (S-5.9)", async () => {
  const state = await scheduler.run(callsUnknown);
  assertStatus(state, "FAILED");
  assert.match(state.failureDetails.message, /nobodyRegisteredThis/);
});

test("an unregistered orchestrator fails with the worker's own words (S-4.14)", async () => {
  const state = await scheduler.run("nobodyRegisteredThisEither");
  assertStatus(state, "FAILED");
  assert.match(state.failureDetails.message, /nobodyRegisteredThisEither/);
});

let isRecoded = false;
const recode = scheduler.activity("recode", () => {
  isRecoded = true;
});
const recoded = scheduler.orchestrator("recoded", async function* (context) {
  yield isRecoded ? context.createTimer(3600) : context.callActivity(recode);
});

test("code that no longer matches its history fails the instance instead of retrying for ever (S-4.14)", async () => {
  const state = await scheduler.run(recoded);
  assertStatus(state, "FAILED");
  assert.equal(state.failureDetails.errorType, "NonDeterminismError");
});

const fragile = scheduler.entity("fragile", () => ({
  run() {
    throw nestedError();
  },
}));

const callsEntity = scheduler.orchestrator("callsEntity", async function* (context) {
  return yield context.entities.callEntity(new EntityInstanceId(fragile, "vase"), "drop");
});

test("an entity operation's failure that nobody catches fails the orchestration, and history keeps it (S-12.15)", async () => {
  const state = await scheduler.run(callsEntity);
  assertStatus(state, "FAILED");
  assert.equal(state.failureDetails.errorType, "EntityOperationFailedException");
  assert.match(state.failureDetails.message, /'drop' of entity '@fragile@vase' failed: could not ship/);
  const failed = (await scheduler.wireHistory(state.instanceId)).find((event) => event.hasEntityoperationfailed());
  const details = failed.getEntityoperationfailed().getFailuredetails();
  assert.equal(details.getErrortype(), "ShipmentError");
  assert.equal(details.getErrormessage(), "could not ship");
  assert.match(details.getStacktrace().getValue(), /nestedError/);
});
