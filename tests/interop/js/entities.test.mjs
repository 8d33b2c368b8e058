// What entities do: operations in order, their results and failures, deletion, and what they send and start.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import {
  Scheduler,
  assertStatus,
  eventually,
  failsWith,
  gate,
  newEntity,
  newId,
  operationFailure,
  output,
  verbatim,
} from "./scheduler.mjs";

const { OrchestrationStatus, TaskEntity } = durabletask;

/** The payload limit that the server has by default, in bytes of one string value (S-14.2). */
const PAYLOAD_BYTES_MAX = 1_048_576;

const scheduler = new Scheduler(["--lease-grace", "200ms"]);
const roomy = new Scheduler(["--payload-bytes-max", "16MiB"]);
let worker;

before(async () => {
  await Promise.all([scheduler.start({ withWorker: false }), roomy.start()]);
  worker = await scheduler.startWorker();
});
after(() => Promise.all([scheduler.stop(), roomy.stop()]));

const numbers = (count) => Array.from({ length: count }, (_, index) => index);

// ---- what the tests work with ----

/** By entity id: the gates at which its operation `hold` reports and waits, once. */
const holds = new Map();

/** What the operation `hold` does: it keeps its batch in the worker until the test lets it go. */
async function holdIfAsked(operation) {
  const id = operation.context.id.toString();
  const hold = holds.get(id);
  holds.delete(id);
  hold?.reached.open();
  await hold?.release.passed;
}

/** Makes an entity hold its worker and returns the gate that lets it go: what is sent meanwhile is one batch. */
async function hold(id) {
  const gates = { reached: gate(), release: gate() };
  holds.set(id.toString(), gates);
  await scheduler.client.signalEntity(id, "hold");
  await gates.reached.passed;
  return gates.release;
}

/** By entity id: its batches, each as the names of its operations in the order they ran. */
const batches = new Map();
/** Ids of journals of which a batch runs at this moment, and of those that ran two at once. */
const running = new Set();
const overlapping = new Set();

class Counter extends TaskEntity {
  initializeState() {
    return 0;
  }

  add(amount) {
    this.state += amount;
    return this.state;
  }

  get() {
    return this.state;
  }

  async fail({ type, message }) {
    this.state += 1_000;
    throw Object.assign(new Error(message), { name: type });
  }
}
const counter = scheduler.entity("Counter", () => new Counter());

// Function-based; the state is the list of what was written.
const journal = scheduler.entity("journal", () => {
  const batch = [];
  return {
    async run(operation) {
      const id = operation.context.id.toString();
      if (batch.length === 0) {
        batches.set(id, [...(batches.get(id) ?? []), batch]);
      }
      batch.push(operation.name);
      if (running.has(id)) {
        overlapping.add(id);
      }
      running.add(id);
      try {
        return await runJournal(operation);
      } finally {
        running.delete(id);
      }
    },
  };
});

async function runJournal(operation) {
  const entries = operation.state.getState([]);
  const write = (entry) => operation.state.setState([...entries, entry]);
  switch (operation.name) {
    case "write":
      write(operation.getInput());
      return entries.length + 1;
    case "writeTime":
      return write(Date.now());
    case "read":
      return entries;
    case "hold":
      return holdIfAsked(operation);
    case "tear":
      write("torn");
      operation.context.signalEntity(operation.context.id, "write", "sent by a failure");
      throw Object.assign(new Error("torn off"), { name: "PaperError" });
    case "delete":
      return operation.state.setState(undefined);
    default:
      throw new Error(`a journal has no operation ${operation.name}`);
  }
}

class Relay extends TaskEntity {
  initializeState() {
    return [];
  }

  send({ target, operation, input, at }) {
    this.context.signalEntity(verbatim(target), operation, input, at && { signalTime: new Date(at) });
  }

  start({ name, input, instanceId, at }) {
    return this.context.scheduleNewOrchestration(name, input, { instanceId, startAt: at && new Date(at) });
  }

  countDown(from) {
    this.state.push(from);
    if (from > 0) {
      this.context.signalEntity(this.context.id, "countDown", from - 1);
    }
  }
}
const relay = scheduler.entity("relay", () => new Relay());

// Makes all its calls at once and then collects their outcomes in the same order.
const callBody = async function* (context, { entity, calls }) {
  const tasks = calls.map(([operation, input]) => context.entities.callEntity(verbatim(entity), operation, input));
  const outcomes = [];
  for (const task of tasks) {
    try {
      outcomes.push({ result: yield task });
    } catch (error) {
      outcomes.push({ failure: operationFailure(error) });
    }
  }
  return outcomes;
};
const call = scheduler.orchestrator("call", callBody);

/** Calls one operation from an orchestration of its own and returns its outcome. */
async function outcomeOf(entity, operation, input) {
  const [outcome] = output(await scheduler.run(call, { entity: `${entity}`, calls: [[operation, input]] }));
  return outcome;
}

// ---- calls and signals ----

test("a client's signals to a new entity apply once and in order (S-12.41, S-12.7)", async () => {
  const id = newEntity(journal);
  assert.equal(await scheduler.client.getEntity(id), undefined);
  for (const item of numbers(25)) {
    await scheduler.client.signalEntity(id, "write", item);
  }
  await scheduler.entityReaches(id, numbers(25));
});

test("an orchestration calls a class-based entity, and its history tells the call and the answer (S-12.42)", async () => {
  const id = newEntity(counter);
  await scheduler.client.signalEntity(id, "add", 5);
  const state = await scheduler.run(call, { entity: `${id}`, calls: [["get"]] });
  assert.deepEqual(output(state), [{ result: 5 }]);
  const history = await scheduler.client.getOrchestrationHistory(state.instanceId);
  assert.deepEqual(
    history.map((event) => event.type),
    [
      "OrchestratorStarted",
      "ExecutionStarted",
      "EntityOperationCalled",
      "OrchestratorStarted",
      "EntityOperationCompleted",
      "ExecutionCompleted",
    ],
  );
  const [called, completed] = [history[2], history[4]];
  assert.equal(called.eventId, 1);
  assert.equal(called.operation, "get");
  assert.equal(called.targetInstanceId, `${id}`, "the target stays in the history (S-4.11)");
  assert.equal(completed.eventId, -1);
  assert.equal(completed.requestId, called.requestId);
  assert.equal(completed.output, "5");
});

const echo = scheduler.entity("echo", () => ({ run: (operation) => operation.getInput() }));

test("results come back as they are: objects, falsy values, unicode and nothing (S-0.5, S-12.15)", async () => {
  const inputs = [{ größe: ["大", null] }, 0, false, "", "👩‍👩‍👧‍👦 \u0000 \u2028"];
  const calls = [...inputs, undefined].map((input) => ["echo", input]);
  const outcomes = output(await scheduler.run(call, { entity: `${newEntity(echo)}`, calls }));
  assert.deepEqual(outcomes, [...inputs.map((result) => ({ result })), {}]);
});

const writer = scheduler.orchestrator("writer", async function* (context, entity) {
  const target = verbatim(entity);
  numbers(10).forEach((item) => context.entities.signalEntity(target, "write", item));
  yield context.createTimer(0);
  for (const item of numbers(20).slice(10)) {
    // Calls that nobody waits for keep their place among the signals.
    const send = item % 2 === 0 ? "signalEntity" : "callEntity";
    context.entities[send](target, "write", item);
  }
  return yield context.entities.callEntity(target, "read");
});

test("signals and calls of one orchestration arrive in action order, across episodes too (S-12.22, S-12.23)", async () => {
  const state = await scheduler.run(writer, `${newEntity(journal)}`);
  assert.deepEqual(output(state), numbers(20));
});

test("a hot entity takes each of many calls and signals once, one batch at a time (S-0.1, S-12.15)", async () => {
  const id = newEntity(journal);
  const calls = numbers(60).map(async (item) => (await outcomeOf(id, "write", `call ${item}`)).result);
  const signals = numbers(60).map((item) => scheduler.client.signalEntity(id, "write", `signal ${item}`));
  const lengths = await Promise.all(calls);
  await Promise.all(signals);
  const { result: entries } = await outcomeOf(id, "read");
  assert.equal(entries.length, 120);
  assert.equal(new Set(entries).size, 120, "an operation was applied twice");
  lengths.forEach((length, item) => assert.equal(entries[length - 1], `call ${item}`, "an answer went to another caller"));
  assert.ok(!overlapping.has(`${id}`), "two batches of one entity ran at once");
});

test("what waits for an entity is one batch, in the order it came (S-12.10)", async () => {
  const id = newEntity(journal);
  const release = await hold(id);
  for (const item of numbers(7)) {
    await scheduler.client.signalEntity(id, "write", item);
  }
  release.open();
  await scheduler.entityReaches(id, numbers(7));
  assert.deepEqual(batches.get(`${id}`), [["hold"], numbers(7).map(() => "write")]);
});

// ---- failures ----

test("a failed operation tells its caller type and message, leaves no trace, and the entity goes on (S-12.15)", async () => {
  const id = newEntity(counter);
  assert.deepEqual(await outcomeOf(id, "add", 5), { result: 5 });
  assert.deepEqual(await outcomeOf(id, "fail", { type: "CounterError", message: "jammed 雪" }), {
    failure: { type: "CounterError", message: "jammed 雪", entity: `${id}`, operation: "fail" },
  });
  assert.equal((await scheduler.client.getEntity(id)).state, 5);
  assert.deepEqual(await outcomeOf(id, "add", 1), { result: 6 });
});

test("success, failure and success in one batch each reach their own call (S-12.43)", async () => {
  const id = newEntity(journal);
  const release = await hold(id);
  const calls = [["write", "before"], ["tear"], ["write", "after"], ["read"]];
  const caller = await scheduler.client.scheduleNewOrchestration(call, { entity: `${id}`, calls });
  await scheduler.recorded(caller, "EntityOperationCalled", 4);
  release.open();
  assert.deepEqual(output(await scheduler.finished(caller)), [
    { result: 1 },
    { failure: { type: "PaperError", message: "torn off", entity: `${id}`, operation: "tear" } },
    { result: 2 },
    { result: ["before", "after"] },
  ]);
  assert.deepEqual(batches.get(`${id}`), [["hold"], ["write", "tear", "write", "read"]]);
  assert.deepEqual(await outcomeOf(id, "read"), { result: ["before", "after"] }, "a failed operation's signal was sent");
});

test("a failed signal has no further consequence (S-12.15)", async () => {
  const id = newEntity(counter);
  await scheduler.client.signalEntity(id, "add", 1);
  await scheduler.client.signalEntity(id, "fail", { type: "CounterError", message: "nobody hears" });
  await scheduler.client.signalEntity(id, "add", 1);
  await scheduler.entityReaches(id, 2);
});

test("an operation or an entity that the worker lacks fails the call in the worker's words (S-12.12)", async () => {
  const { failure: operation } = await outcomeOf(newEntity(counter), "subtract", 1);
  assert.match(operation.message, /'subtract'/);
  const id = newEntity("nobodyregisteredthis");
  const { failure: entity } = await outcomeOf(id, "add", 1);
  assert.equal(entity.type, "EntityTaskNotFound");
  assert.match(entity.message, /nobodyregisteredthis/);
  assert.equal(await scheduler.client.getEntity(id), undefined);
});

test("calls to ids that cannot be fail with InvalidArgument, and such signals are dropped (S-4.18, S-12.1)", async () => {
  for (const id of [`@journal@${"k".repeat(92)}`, "journal", "@journal", "@@key"]) {
    const { failure } = await outcomeOf(id, "write", 1);
    assert.equal(failure?.type, "InvalidArgument", `a call to ${id}`);
    assert.equal(output(await scheduler.run(report, { to: id, note: "went on" })), "went on");
  }
  const longest = `@journal@${"k".repeat(91)}`;
  assert.equal(longest.length, 100);
  assert.deepEqual(await outcomeOf(longest, "write", "fits"), { result: 1 });
});

// ---- deletion ----

test("a deleted entity does not exist, and the next operation starts it afresh (S-12.7, S-12.49)", async () => {
  for (const [name, fill, empty] of [
    [counter, "add", 3],
    [journal, "write", 1],
  ]) {
    const id = newEntity(name);
    const first = await outcomeOf(id, fill, 3);
    await outcomeOf(id, "delete");
    assert.equal(await scheduler.client.getEntity(id), undefined);
    assert.equal(await scheduler.client.getEntity(id, false), undefined);
    assert.deepEqual(await outcomeOf(id, fill, 3), first);
    assert.deepEqual(first, { result: empty });
  }
});

// ---- what entities send and start ----

test("an entity signals another one and itself, in order (S-12.18, S-12.48)", async () => {
  const id = newEntity(relay);
  const target = newEntity(journal);
  for (const item of numbers(5)) {
    await scheduler.client.signalEntity(id, "send", { target: `${target}`, operation: "write", input: item });
  }
  await scheduler.entityReaches(target, numbers(5));
  await scheduler.client.signalEntity(id, "countDown", 12);
  await scheduler.entityReaches(id, numbers(13).reverse());
});

const report = scheduler.orchestrator("report", async (context, { to, note }) => {
  context.entities.signalEntity(verbatim(to), "write", { id: context.instanceId, note });
  return note;
});

test("an entity starts orchestrations, with an id of its choice or one the server makes (S-12.48, S-10.7)", async () => {
  const id = newEntity(relay);
  const to = newEntity(journal);
  const chosen = newId("chosen");
  const { result } = await outcomeOf(id, "start", { name: report, input: { to: `${to}`, note: 1 }, instanceId: chosen });
  assert.equal(result, chosen);
  assert.equal(output(await scheduler.finished(chosen)), 1);

  await scheduler.client.signalEntity(id, "start", { name: report, input: { to: `${to}`, note: 2 }, instanceId: "" });
  await eventually("a report of the second one", async () => (await scheduler.client.getEntity(to))?.state.length === 2);
  const [first, second] = (await scheduler.client.getEntity(to)).state;
  assert.deepEqual(first, { id: chosen, note: 1 });
  assert.match(second.id, /^[0-9a-f]{32}$/);
  assert.equal(output(await scheduler.finished(second.id)), 2);
});

const waits = scheduler.orchestrator("waits", async function* (context, note) {
  yield context.waitForExternalEvent("go");
  return note;
});

test("an orchestration that an entity starts for later is pending until then (S-6.8, S-6.6)", async () => {
  const at = Date.now() + 400;
  const { result } = await outcomeOf(newEntity(relay), "start", { name: report, input: { to: "nobody", note: 3 }, at });
  const pending = await scheduler.client.getOrchestrationState(result);
  assert.ok(pending.runtimeStatus === OrchestrationStatus.PENDING || Date.now() >= at);
  assert.equal(output(await scheduler.finished(result)), 3);
  assert.ok(Date.now() >= at);
});

test("an entity's start leaves an active instance alone and replaces an ended one (S-10.7)", async () => {
  const id = newEntity(relay);
  const instanceId = newId("fixed");
  const start = (note) => outcomeOf(id, "start", { name: waits, input: note, instanceId });
  await start("first");
  await scheduler.started(instanceId);
  assert.deepEqual(await start("second"), { result: instanceId });
  await scheduler.client.raiseOrchestrationEvent(instanceId, "go");
  assert.equal(output(await scheduler.finished(instanceId)), "first");
  await start("third");
  await scheduler.client.raiseOrchestrationEvent(instanceId, "go");
  assert.equal(output(await scheduler.finished(instanceId)), "third");
});

// ---- delayed signals ----

test("delayed signals apply in the order they fall due, never early (S-6.7)", async () => {
  const id = newEntity(journal);
  const base = Date.now() + 500;
  const at = (milliseconds) => ({ signalTime: new Date(base + milliseconds) });
  await scheduler.client.signalEntity(id, "write", "last", at(300));
  await scheduler.client.signalEntity(id, "write", "first", at(100));
  await scheduler.client.signalEntity(id, "writeTime", undefined, at(200));
  await scheduler.client.signalEntity(id, "write", "then", at(200));
  await scheduler.client.signalEntity(id, "write", "at once", { signalTime: new Date(base - 3_600_000) });
  await eventually("all five", async () => (await scheduler.client.getEntity(id))?.state.length === 5);
  const { state } = await scheduler.client.getEntity(id);
  const [time] = state.splice(2, 1);
  assert.deepEqual(state, ["at once", "first", "then", "last"]);
  assert.ok(time >= base + 200, `a signal ran ${base + 200 - time} ms early`);
});

const delays = scheduler.orchestrator("delays", async (context, { entity, at }) => {
  context.entities.signalEntity(verbatim(entity), "writeTime", undefined, { signalTime: new Date(at) });
});

test("orchestrations and entities delay signals too, also when they end before (S-12.22, S-12.44, S-12.52)", async () => {
  const ids = [newEntity(journal), newEntity(journal)];
  const at = Date.now() + 600;
  const state = await scheduler.run(delays, { entity: `${ids[0]}`, at });
  assert.equal(output(state), undefined);
  const signaled = (await scheduler.client.getOrchestrationHistory(state.instanceId)).find(
    (event) => event.type === "EntityOperationSignaled",
  );
  assert.equal(signaled.scheduledTime.getTime(), at, "history repeats the time (S-4.12)");
  await scheduler.client.signalEntity(newEntity(relay), "send", { target: `${ids[1]}`, operation: "writeTime", at });
  for (const id of ids) {
    const entity = await eventually(`the delayed signal of ${id}`, () => scheduler.client.getEntity(id));
    assert.ok(entity.state[0] >= at, `a signal ran ${at - entity.state[0]} ms early`);
  }
});

// ---- callers that end ----

test("a call of an orchestration that ends is executed, and its answer is dropped (S-12.52, S-2.10)", async () => {
  const id = newEntity(journal);
  const release = await hold(id);
  const caller = await scheduler.client.scheduleNewOrchestration(call, { entity: `${id}`, calls: [["write", "late"]] });
  await scheduler.recorded(caller, "EntityOperationCalled");
  await scheduler.client.terminateOrchestration(caller, "no longer");
  const history = await scheduler.historyTypes(caller);
  release.open();
  await scheduler.entityReaches(id, ["late"]);
  assertStatus(await scheduler.client.getOrchestrationState(caller), "TERMINATED");
  assert.deepEqual(await scheduler.historyTypes(caller), history);
});

const callsAgain = scheduler.orchestrator("callsAgain", async function* (context, { entity, generation }) {
  const task = context.entities.callEntity(verbatim(entity), "write", generation);
  if (generation === 1) {
    yield context.createTimer(0);
    context.continueAsNew({ entity, generation: 2 }, false);
    return;
  }
  return yield task;
});

test("an answer to an earlier generation never reaches the next one (S-0.3, S-12.15)", async () => {
  const id = newEntity(journal);
  const release = await hold(id);
  const caller = await scheduler.client.scheduleNewOrchestration(callsAgain, { entity: `${id}`, generation: 1 });
  await eventually("the second generation's call", async () => {
    const { serializedInput } = await scheduler.client.getOrchestrationState(caller);
    const types = await scheduler.historyTypes(caller);
    return JSON.parse(serializedInput).generation === 2 && types.includes("EntityOperationCalled");
  });
  release.open();
  assert.equal(output(await scheduler.finished(caller)), 2);
  const types = await scheduler.historyTypes(caller);
  assert.equal(types.filter((type) => type === "EntityOperationCompleted").length, 1);
  assert.deepEqual((await scheduler.client.getEntity(id)).state, [1, 2]);
});

// ---- sizes ----

/** A string whose JSON text, with its two quotes, takes so many bytes. */
const stringOfJsonBytes = (bytes) => "x".repeat(bytes - 2);

// Its state is a string; operations make states, results and signals of a wanted size.
const makeBox = () => ({
  run(operation) {
    const input = operation.getInput();
    switch (operation.name) {
      case "hold":
        return holdIfAsked(operation);
      case "size":
        return JSON.stringify(operation.state.getState("")).length;
      case "fill":
        return operation.state.setState(stringOfJsonBytes(input));
      case "reply":
        operation.state.setState("replied");
        return stringOfJsonBytes(input);
      case "send":
        operation.state.setState("sent");
        operation.context.signalEntity(verbatim(input.target), "write", "small");
        operation.context.signalEntity(verbatim(input.target), "write", stringOfJsonBytes(input.bytes));
        return;
    }
  },
});
const box = scheduler.entity("box", makeBox);
roomy.entity("box", makeBox);
roomy.orchestrator("call", callBody);

test("a state, result or signal over the limit fails its operation alone, naming limit and size (S-14.4)", async () => {
  const id = newEntity(box);
  const target = newEntity(journal);
  const over = PAYLOAD_BYTES_MAX + 1;
  const calls = [
    ["fill", 100],
    ["fill", over],
    ["size"],
    ["reply", over],
    ["send", { target: `${target}`, bytes: over }],
    ["size"],
    ["fill", PAYLOAD_BYTES_MAX],
    ["size"],
  ];
  const release = await hold(id);
  const caller = await scheduler.client.scheduleNewOrchestration(call, { entity: `${id}`, calls });
  await scheduler.recorded(caller, "EntityOperationCalled", calls.length);
  release.open();
  const outcomes = output(await scheduler.finished(caller));
  for (const index of [1, 3, 4]) {
    const { failure } = outcomes[index];
    assert.equal(failure?.type, "PayloadTooLarge", `outcome of ${calls[index]}`);
    assert.match(failure.message, /(?=.*1048576)(?=.*1048577)/s);
  }
  const others = outcomes.filter((outcome) => !outcome.failure);
  assert.deepEqual(others, [{}, { result: 100 }, { result: 100 }, {}, { result: PAYLOAD_BYTES_MAX }]);
  assert.equal(await scheduler.client.getEntity(target), undefined, "a failed operation has no actions");
  assert.equal((await scheduler.client.getEntity(id)).state, stringOfJsonBytes(PAYLOAD_BYTES_MAX));
});

test("a signal's input over the limit is refused naming both sizes (S-14.3)", async () => {
  const id = newEntity(journal);
  const refused = scheduler.client.signalEntity(id, "write", stringOfJsonBytes(PAYLOAD_BYTES_MAX + 1));
  await assert.rejects(refused, failsWith("INVALID_ARGUMENT", /(?=.*1048576)(?=.*1048577)/s));
  await scheduler.client.signalEntity(id, "write", "small");
  await scheduler.entityReaches(id, ["small"]);
});

test("with the limit raised a state of 15 MiB works over a channel that carries it (S-14.2, S-1.11)", async () => {
  const id = newEntity(box);
  const large = 15 * 1_048_576;
  const run = async (...calls) => output(await roomy.run("call", { entity: `${id}`, calls }));
  assert.deepEqual(await run(["fill", large], ["size"]), [{}, { result: large }]);
  assert.deepEqual(await run(["size"]), [{ result: large }]);
  assert.equal((await roomy.client.getEntity(id)).state.length, large - 2);
  assert.deepEqual(await run(["fill", 3], ["size"]), [{}, { result: 3 }]);
});

// ---- lost workers ----

/** Runs in a process of its own: a worker that does two operations of a batch and never ends the third. */
async function workAndHang(address) {
  const { default: sdk } = await import("@microsoft/durabletask-js");
  const entities = [{ name: "journal" }];
  const lost = new sdk.TaskHubGrpcWorker({ hostAddress: address, logger: new sdk.NoOpLogger(), workItemFilters: { entities } });
  lost.addNamedEntity("journal", () => ({
    async run(operation) {
      const entries = operation.state.getState([]);
      if (entries.length === 2) {
        process.stdout.write("hanging\n");
        await new Promise(() => {});
      }
      operation.state.setState([...entries, `lost ${operation.getInput()}`]);
    },
  }));
  await lost.start();
}

test("a batch whose worker is killed in the middle, again and again, is applied once (S-12.20, S-12.49)", async () => {
  await scheduler.stopWorker(worker);
  await scheduler.startWorker({ orchestrators: [call], activities: [], entities: [], filters: "auto" });
  const id = newEntity(journal);
  for (const item of numbers(4)) {
    await scheduler.client.signalEntity(id, "write", item);
  }
  const caller = await scheduler.client.scheduleNewOrchestration(call, { entity: `${id}`, calls: [["write", 4]] });
  await scheduler.recorded(caller, "EntityOperationCalled");

  const program = `(${workAndHang})(${JSON.stringify(scheduler.server.address)})`;
  for (let round = 1; round <= 3; round++) {
    const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
      cwd: import.meta.dirname,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = once(child, "exit");
    const early = ended.then(() => assert.fail(`worker process ${round} ended by itself`));
    await Promise.race([once(child.stdout, "data"), early]);
    assert.equal(await scheduler.client.getEntity(id), undefined, "a batch without an answer has no effect");
    child.kill("SIGKILL");
    await ended;
  }

  await scheduler.startWorker();
  assert.deepEqual(output(await scheduler.finished(caller)), [{ result: 5 }]);
  assert.deepEqual((await scheduler.client.getEntity(id)).state, numbers(5));
});
