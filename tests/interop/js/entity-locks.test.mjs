// Critical sections: who holds a lock, who waits, what ends it, and what is left of it all when the server is killed.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import {
  Scheduler,
  assertStatus,
  eventually,
  gate,
  newEntity,
  newId,
  operationFailure,
  output,
  text,
  verbatim,
  wire,
} from "./scheduler.mjs";

const { EntityInstanceId, OrchestrationStatus, TaskEntity, whenAll } = durabletask;
const scheduler = new Scheduler();

before(() => scheduler.start());
after(() => scheduler.stop());

const numbers = (count) => Array.from({ length: count }, (_, index) => index);
const sum = (items) => items.reduce((total, item) => total + item, 0);

/** Numbers from 0 to `below` - 1 that are the same in every run. */
function sequence(seed) {
  return (below) => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (seed >> 8) % below;
  };
}

// ---- what the tests work with ----

/** By entity id: the gates at which a journal's next operation `hold` reports and waits. */
const holds = new Map();

/** Makes the next operation `hold` of an entity stop its worker: `reached` opens there, `release` lets it go. */
function holdNext(id) {
  const gates = { reached: gate(), release: gate() };
  holds.set(`${id}`, gates);
  return gates;
}

const makeJournal = () => ({
  async run(operation) {
    const entries = operation.state.getState([]);
    if (operation.name === "hold") {
      const id = operation.context.id.toString();
      const hold = holds.get(id);
      holds.delete(id);
      hold?.reached.open();
      await hold?.release.passed;
    } else {
      operation.state.setState([...entries, operation.getInput()]);
    }
    return entries;
  },
});
const journal = scheduler.entity("journal", makeJournal);

/** Entities that exist, with the state `["start"]`; in canonical order. */
async function newJournals(count) {
  const prefix = newId("journal");
  const ids = numbers(count).map((index) => new EntityInstanceId(journal, `${prefix}-${index}`));
  await Promise.all(ids.map((id) => scheduler.client.signalEntity(id, "write", "start")));
  await Promise.all(ids.map((id) => scheduler.entityReaches(id, ["start"])));
  return ids;
}

/** Who holds an entity, now. */
async function lockedBy(id) {
  return (await scheduler.client.getEntity(id, false)).lockedBy;
}

async function assertLockedBy(ids, holder) {
  for (const id of ids) {
    assert.equal(await lockedBy(id), holder, `holder of ${id}`);
  }
}

const write = scheduler.orchestrator("write", async function* (context, { entity, note }) {
  yield context.entities.callEntity(verbatim(entity), "write", note);
});

// Holds its entities until the event `go`, writes to each of them and lets go.
const writesLocked = scheduler.orchestrator("writesLocked", async function* (context, { entities, note }) {
  const ids = entities.map(verbatim);
  const lock = yield context.entities.lockEntities(...ids);
  yield context.waitForExternalEvent("go");
  for (const id of ids) {
    yield context.entities.callEntity(id, "write", note);
  }
  lock.release();
  return note;
});

// Holds its entities until the event `go` and ends, or goes on, as it was told.
const holder = scheduler.orchestrator("holder", async function* (context, { entities, then }) {
  if (then === "nothing") {
    yield context.waitForExternalEvent("go");
    return then;
  }
  const lock = yield context.entities.lockEntities(...entities.map(verbatim));
  yield context.waitForExternalEvent("go");
  switch (then) {
    case "fail":
      throw new Error("the holder gives up");
    case "continueAsNew":
      context.continueAsNew({ then: "nothing" }, false);
      return;
    case "release":
      lock.release();
      yield context.waitForExternalEvent("go");
  }
  return then;
});

/** Starts a `holder` and returns its id once it holds its entities. */
async function startHolder(entities, then) {
  const id = await scheduler.client.scheduleNewOrchestration(holder, { entities: entities.map(String), then });
  await scheduler.recorded(id, "EntityLockGranted");
  return id;
}

const go = (id) => scheduler.client.raiseOrchestrationEvent(id, "go");

// ---- the protocol ----

test("a critical section over two entities is in the history, event by event (S-12.45, S-12.25, S-12.35)", async () => {
  const [first, second] = await newJournals(2);
  const entities = [`${second}`, `${first}`];
  const id = await scheduler.client.scheduleNewOrchestration(writesLocked, { entities, note: "done" });
  await scheduler.recorded(id, "EntityLockGranted");
  await assertLockedBy([first, second], id);
  await go(id);
  assert.equal(output(await scheduler.finished(id)), "done");
  await assertLockedBy([first, second], undefined);

  const history = await scheduler.client.getOrchestrationHistory(id);
  const steps = history.filter((event) => event.type.startsWith("Entity"));
  assert.deepEqual(
    steps.map((event) => `${event.type} ${event.eventId}`),
    [
      "EntityLockRequested 1",
      "EntityLockGranted -1",
      "EntityOperationCalled 2",
      "EntityOperationCompleted -1",
      "EntityOperationCalled 3",
      "EntityOperationCompleted -1",
      "EntityUnlockSent 4",
      "EntityUnlockSent 5",
    ],
  );
  const [requested, granted] = steps;
  assert.equal(requested.position, 0);
  assert.equal(requested.parentInstanceId, id);
  assert.deepEqual(requested.lockSet, [`${first}`, `${second}`]);
  assert.equal(granted.criticalSectionId, requested.criticalSectionId);
  for (const event of steps.slice(-2)) {
    assert.equal(event.criticalSectionId, requested.criticalSectionId);
  }
  assert.deepEqual(steps.slice(-2).map((event) => event.targetInstanceId).sort(), [`${first}`, `${second}`]);
  assert.equal(history.at(-1).type, "ExecutionCompleted");
});

test("a lock that is released before its holder ends is free at once for others (S-12.30, S-12.36)", async () => {
  const entities = await newJournals(2);
  const id = await startHolder(entities, "release");
  await assertLockedBy(entities, id);
  await go(id);
  await scheduler.recorded(id, "EntityUnlockSent", 2);
  await assertLockedBy(entities, undefined);
  assertStatus(await scheduler.client.getOrchestrationState(id), "RUNNING");
  const other = await startHolder(entities, "return");
  await assertLockedBy(entities, other);
  await Promise.all([go(id), go(other)]);
  assertStatus(await scheduler.finished(id), "COMPLETED");
  assertStatus(await scheduler.finished(other), "COMPLETED");
});

/** Lets a signal, a lock request and a call queue up behind a lock, in this order, and checks that they keep it. */
async function checkContention(disturb) {
  const [entity] = await newJournals(1);
  const start = (name, input) => scheduler.client.scheduleNewOrchestration(name, input);
  const first = await start(writesLocked, { entities: [`${entity}`], note: "first" });
  await scheduler.recorded(first, "EntityLockGranted");
  await scheduler.client.signalEntity(entity, "write", "signal");
  const second = await start(writesLocked, { entities: [`${entity}`], note: "second" });
  await scheduler.recorded(second, "EntityLockRequested");
  const third = await start(write, { entity: `${entity}`, note: "call" });
  await scheduler.recorded(third, "EntityOperationCalled");

  await disturb();
  const { lockedBy: held, backlogQueueSize, state } = await scheduler.client.getEntity(entity);
  assert.deepEqual({ held, backlogQueueSize, state }, { held: first, backlogQueueSize: 2, state: ["start"] });
  await go(first);
  assertStatus(await scheduler.finished(first), "COMPLETED");
  await scheduler.entityReaches(entity, ["start", "first", "signal"]);
  await scheduler.recorded(second, "EntityLockGranted");
  await assertLockedBy([entity], second);

  await disturb();
  await assertLockedBy([entity], second);
  assertStatus(await scheduler.client.getOrchestrationState(third), "RUNNING");
  await go(second);
  assertStatus(await scheduler.finished(second), "COMPLETED");
  assertStatus(await scheduler.finished(third), "COMPLETED");
  const after = await scheduler.client.getEntity(entity);
  assert.deepEqual(after.state, ["start", "first", "signal", "second", "call"]);
  assert.equal(after.lockedBy, undefined);
  assert.equal(after.backlogQueueSize, 0);
}

test("the holder overtakes, and everybody else waits in order of arrival (S-12.46, S-12.24, S-12.29, S-12.31)", async () => {
  await checkContention(async () => {});
});

test("lock sets may be unsorted and name an entity twice, in any case of letters (S-12.26, S-12.2)", async () => {
  const key = newId("Key");
  // The whole strings sort otherwise than (name, key): "-" and capitals come before "@" and small letters.
  const names = ["till", "till-2", "apple", "zebra"];
  const entities = names.map((name) => `@${name}@${key}`);
  const spelled = [`@ZEBRA@${key}`, `@till-2@${key}`, `@Apple@${key}`, `@till@${key}`, `@aPPle@${key}`, `@zebra@${key}`];
  await Promise.all(entities.map((id) => scheduler.client.signalEntity(verbatim(id), "write", "start")));
  await Promise.all(entities.map((id) => scheduler.entityReaches(id, ["start"])));
  const id = await startHolder(spelled, "release");
  await assertLockedBy(entities, id);
  const history = await scheduler.client.getOrchestrationHistory(id);
  const { lockSet } = history.find((event) => event.type === "EntityLockRequested");
  assert.deepEqual(lockSet, [...spelled].sort(), "history repeats the set as it was sent (S-12.25)");
  assert.notDeepEqual(lockSet.map((entity) => entity.toLowerCase()), [...lockSet].map((entity) => entity.toLowerCase()).sort());

  const rival = await scheduler.client.scheduleNewOrchestration(writesLocked, { entities, note: "rival" });
  await scheduler.recorded(rival, "EntityLockRequested");
  await go(id);
  await scheduler.recorded(id, "EntityUnlockSent", spelled.length);
  await scheduler.recorded(rival, "EntityLockGranted");
  await assertLockedBy(entities, rival);
  await Promise.all([go(id), go(rival)]);
  assertStatus(await scheduler.finished(id), "COMPLETED");
  assert.equal(output(await scheduler.finished(rival)), "rival");
  await assertLockedBy(entities, undefined);
});
for (const name of ["till", "till-2", "apple", "zebra"]) {
  scheduler.entity(name, makeJournal);
}

// A room that refuses who enters or looks in while somebody is in it.
const room = scheduler.entity("room", () => ({
  run(operation) {
    const { guest, visits, looks } = operation.state.getState({ guest: null, visits: 0, looks: 0 });
    const name = operation.getInput();
    if (operation.name === "leave") {
      assert.equal(guest, name);
      operation.state.setState({ guest: null, visits: visits + 1, looks });
    } else {
      assert.equal(guest, null, `${guest} is in the room that ${name} wants to ${operation.name}`);
      const isEntering = operation.name === "enter";
      operation.state.setState({ guest: isEntering ? name : null, visits, looks: isEntering ? looks : looks + 1 });
    }
  },
}));

const visit = scheduler.orchestrator("visit", async function* (context, { lockSet, rooms }) {
  const lock = yield context.entities.lockEntities(...lockSet.map(verbatim));
  for (const id of rooms) {
    yield context.entities.callEntity(verbatim(id), "enter", context.instanceId);
  }
  yield context.createTimer(0);
  for (const id of rooms) {
    yield context.entities.callEntity(verbatim(id), "leave", context.instanceId);
  }
  lock.release();
  return rooms.length;
});

const look = scheduler.orchestrator("look", async function* (context, id) {
  yield context.entities.callEntity(verbatim(id), "look", context.instanceId);
});

test("crossing lock sets never deadlock, and nobody from outside gets in between (S-12.26, S-12.27, S-12.24)", async () => {
  const random = sequence(20);
  const rooms = numbers(6).map(() => `${newEntity(room)}`);
  const shuffled = (items) => items.map((item) => [random(1_000), item]).sort(([a], [b]) => a - b).map(([, item]) => item);
  const instances = [];
  for (const index of numbers(30)) {
    const mine = shuffled(rooms).slice(0, 2 + random(3));
    // Some spell a room in capitals, or name it in both ways.
    const capitals = mine[0].replace("@room@", "@ROOM@");
    const lockSet = index % 3 === 0 ? [...mine.slice(1), capitals, mine[0]] : mine;
    instances.push(await scheduler.client.scheduleNewOrchestration(visit, { lockSet, rooms: mine }));
    if (index % 2 === 0) {
      instances.push(await scheduler.client.scheduleNewOrchestration(look, rooms[random(6)]));
      await scheduler.client.signalEntity(verbatim(rooms[random(6)]), "look", "signal");
    }
  }
  const visited = (await Promise.all(instances.map((id) => scheduler.finished(id)))).map(output);
  await assertLockedBy(rooms.map(verbatim), undefined);
  const seen = async (what) => {
    const entities = await Promise.all(rooms.map((id) => scheduler.client.getEntity(verbatim(id))));
    return sum(entities.map((entity) => entity.state[what]));
  };
  assert.equal(await seen("visits"), sum(visited.filter((count) => count !== undefined)));
  // The last signals may still wait for their turn; one that found a guest would never count.
  await eventually("a look of each of 15 calls and 15 signals", async () => (await seen("looks")) === 30);
});

// ---- what ends a lock, and what does not ----

const ends = [
  ["fails", "fail", go, "FAILED"],
  ["completes without releasing", "return", go, "COMPLETED"],
  ["is terminated", "return", (id) => scheduler.client.terminateOrchestration(id, "enough"), "TERMINATED"],
];
for (const [how, then, end, status] of ends) {
  test(`locks are gone when their holder ${how}, before anybody hears of its end (S-12.32)`, async () => {
    const entities = await newJournals(3);
    const id = await startHolder(entities, then);
    const next = await scheduler.client.scheduleNewOrchestration(write, { entity: `${entities[1]}`, note: "next" });
    await scheduler.recorded(next, "EntityOperationCalled");
    await end(id);
    assertStatus(await scheduler.finished(id), status);
    await assertLockedBy(entities, undefined);
    assertStatus(await scheduler.finished(next), "COMPLETED");
    assert.deepEqual((await scheduler.client.getEntity(entities[1])).state, ["start", "next"]);
  });
}

/** Starts an instance by the wire in place of the one that runs under its id. */
async function replaceInstance(instanceId, name, input) {
  const policy = new wire.OrchestrationIdReusePolicy();
  policy.setReplaceablestatusList([OrchestrationStatus.RUNNING, OrchestrationStatus.TERMINATED]);
  const request = new wire.CreateInstanceRequest();
  request.setInstanceid(instanceId);
  request.setName(name);
  request.setInput(text(JSON.stringify(input)));
  request.setOrchestrationidreusepolicy(policy);
  await scheduler.call("startInstance", request);
}

test("locks end with their holder's generation: continue-as-new and replacement (S-12.32, S-10.5)", async () => {
  const entities = await newJournals(2);
  const id = await startHolder(entities, "continueAsNew");
  await go(id);
  await eventually("the next generation", async () => {
    const { serializedInput } = await scheduler.client.getOrchestrationState(id);
    return JSON.parse(serializedInput).then === "nothing";
  });
  await assertLockedBy(entities, undefined);
  await go(id);
  assert.equal(output(await scheduler.finished(id)), "nothing");

  const replaced = await startHolder(entities, "return");
  await assertLockedBy(entities, replaced);
  await replaceInstance(replaced, holder, { then: "nothing" });
  await assertLockedBy(entities, undefined);
  await go(replaced);
  assert.equal(output(await scheduler.finished(replaced)), "nothing");
});

test("an orchestration that ends while it waits gives back what it had and leaves the queue (S-12.47, S-12.28)", async () => {
  const [first, second] = await newJournals(2);
  const blocker = await startHolder([second], "return");
  const entities = [`${first}`, `${second}`];
  const waiting = await scheduler.client.scheduleNewOrchestration(holder, { entities, then: "return" });
  await eventually("the first of its locks", async () => (await lockedBy(first)) === waiting);
  await assertLockedBy([second], blocker);
  await scheduler.client.terminateOrchestration(waiting, "enough");
  assertStatus(await scheduler.finished(waiting), "TERMINATED");
  await assertLockedBy([first], undefined);
  const next = await scheduler.client.scheduleNewOrchestration(holder, { entities, then: "return" });
  await eventually("the first lock of the next one", async () => (await lockedBy(first)) === next);

  await go(blocker);
  await scheduler.recorded(next, "EntityLockGranted");
  await assertLockedBy([first, second], next);
  await go(next);
  assertStatus(await scheduler.finished(next), "COMPLETED");
  await assertLockedBy([first, second], undefined);
  assert.ok(!(await scheduler.historyTypes(waiting)).includes("EntityLockGranted"));
});

test("a suspended holder keeps its locks, and what waits for them waits on (S-12.33)", async () => {
  const entities = await newJournals(1);
  const id = await startHolder(entities, "return");
  await scheduler.client.suspendOrchestration(id);
  const caller = await scheduler.client.scheduleNewOrchestration(write, { entity: `${entities[0]}`, note: "next" });
  await scheduler.recorded(caller, "EntityOperationCalled");
  await go(id);
  assertStatus(await scheduler.client.getOrchestrationState(id), "SUSPENDED");
  assert.deepEqual((await scheduler.client.getEntity(entities[0])).state, ["start"]);
  await assertLockedBy(entities, id);
  await scheduler.client.resumeOrchestration(id);
  assertStatus(await scheduler.finished(id), "COMPLETED");
  assertStatus(await scheduler.finished(caller), "COMPLETED");
});

test("an entity without state can be locked, and still does not exist (S-12.6, S-12.27)", async () => {
  const id = newEntity(journal);
  const first = await startHolder([id], "return");
  assert.equal(await scheduler.client.getEntity(id), undefined);
  const second = await scheduler.client.scheduleNewOrchestration(holder, { entities: [`${id}`], then: "return" });
  await scheduler.recorded(second, "EntityLockRequested");
  assert.ok(!(await scheduler.historyTypes(second)).includes("EntityLockGranted"));
  await go(first);
  await scheduler.recorded(second, "EntityLockGranted");
  await go(second);
  assertStatus(await scheduler.finished(second), "COMPLETED");
});

// ---- a bank ----

class Account extends TaskEntity {
  initializeState() {
    return 0;
  }

  deposit(amount) {
    this.state += amount;
  }

  withdraw(amount) {
    if (amount > this.state) {
      throw Object.assign(new Error(`${amount} is more than ${this.state}`), { name: "OverdraftError" });
    }
    this.state -= amount;
  }

  balance() {
    return this.state;
  }
}
const account = scheduler.entity("account", () => new Account());

const transfer = scheduler.orchestrator("transfer", async function* (context, { from, to, amount }) {
  const [source, target] = [verbatim(from), verbatim(to)];
  const lock = yield context.entities.lockEntities(source, target);
  try {
    yield context.entities.callEntity(source, "withdraw", amount);
    yield context.entities.callEntity(target, "deposit", amount);
    return "moved";
  } catch (error) {
    return operationFailure(error).type;
  } finally {
    lock.release();
  }
});

const audit = scheduler.orchestrator("audit", async function* (context, accounts) {
  const ids = accounts.map(verbatim);
  const lock = yield context.entities.lockEntities(...ids);
  const balances = yield whenAll(ids.map((id) => context.entities.callEntity(id, "balance")));
  lock.release();
  return balances;
});

/** Runs transfers and auditors side by side; `disturb` gets the ids of them all while they run. */
async function checkBank(seed, disturb) {
  const random = sequence(seed);
  const accounts = numbers(5).map(() => `${newEntity(account)}`);
  const total = 5 * 100;
  await Promise.all(accounts.map((id) => scheduler.client.signalEntity(verbatim(id), "deposit", 100)));
  await Promise.all(accounts.map((id) => scheduler.entityReaches(id, 100)));
  const [transfers, auditors] = [[], []];
  for (const index of numbers(30)) {
    const from = random(5);
    const to = (from + 1 + random(4)) % 5;
    // A few are larger than any balance and fail inside their critical section.
    const amount = index % 6 === 5 ? total + 1 : 1 + random(60);
    const input = { from: accounts[from], to: accounts[to], amount };
    transfers.push(await scheduler.client.scheduleNewOrchestration(transfer, input));
    if (index % 5 === 2) {
      auditors.push(await scheduler.client.scheduleNewOrchestration(audit, accounts));
    }
  }
  await disturb([...transfers, ...auditors]);
  const moved = await Promise.all(transfers.map(async (id) => output(await scheduler.finished(id, 60))));
  for (const [index, outcome] of moved.entries()) {
    assert.ok(outcome === (index % 6 === 5 ? "OverdraftError" : "moved") || outcome === "OverdraftError", outcome);
  }
  assert.ok(moved.includes("moved"));
  for (const id of auditors) {
    const balances = output(await scheduler.finished(id, 60));
    assert.equal(sum(balances), total, `auditor ${id} saw ${balances}`);
  }
  const entities = await Promise.all(accounts.map((id) => scheduler.client.getEntity(verbatim(id))));
  assert.equal(sum(entities.map((entity) => entity.state)), total);
  assert.deepEqual(entities.map((entity) => entity.lockedBy), numbers(5).map(() => undefined));
}

test("auditors that hold all accounts see the same total at any time (S-12.27, S-12.29)", async () => {
  await checkBank(1, async () => {});
});

// ---- a killed server ----

test("state, locks and queues outlive a killed server, and so does their order (S-12.19, S-12.46)", async () => {
  const [entity] = await newJournals(1);
  const before = await scheduler.client.getEntity(entity);
  await checkContention(() => scheduler.killAndRestart());
  assert.deepEqual(await scheduler.client.getEntity(entity), before);
});

test("a server killed with a batch in a worker's hands applies it once, with all that waited (S-13.21, S-12.20)", async () => {
  const id = newEntity(journal);
  const first = holdNext(id);
  await scheduler.client.signalEntity(id, "hold");
  await first.reached.passed;
  for (const operation of ["write", "write", "hold", "write"]) {
    await scheduler.client.signalEntity(id, operation, operation);
  }
  const second = holdNext(id);
  first.release.open();
  await second.reached.passed;
  const caller = await scheduler.client.scheduleNewOrchestration(write, { entity: `${id}`, note: "call" });
  await scheduler.recorded(caller, "EntityOperationCalled");
  // The batch comes again, up to the same operation.
  const third = holdNext(id);
  await scheduler.killAndRestart();
  await third.reached.passed;
  second.release.open();
  assert.equal(await scheduler.client.getEntity(id), undefined);
  third.release.open();
  assertStatus(await scheduler.finished(caller), "COMPLETED");
  assert.deepEqual((await scheduler.client.getEntity(id)).state, ["write", "write", "write", "call"]);
});

test("delayed signals outlive a killed server: one that fell due meanwhile and one still to come (S-6.7)", async () => {
  const id = newEntity(journal);
  const later = Date.now() + 2_500;
  await scheduler.client.signalEntity(id, "write", "second", { signalTime: new Date(later) });
  await scheduler.client.signalEntity(id, "write", "first", { signalTime: new Date(Date.now() + 100) });
  await scheduler.killAndRestart();
  await scheduler.entityReaches(id, ["first", "second"]);
  assert.ok(Date.now() >= later);
});

test("transfers over accounts of a server that is killed twice lose and double nothing (S-12.19, S-12.32)", async () => {
  await checkBank(2, async (ids) => {
    for (const count of [6, 18]) {
      await eventually(`${count} finished`, async () => {
        const states = await Promise.all(ids.map((id) => scheduler.client.getOrchestrationState(id)));
        return states.filter((state) => state.runtimeStatus === OrchestrationStatus.COMPLETED).length >= count;
      });
      await scheduler.killAndRestart();
    }
  });
});
