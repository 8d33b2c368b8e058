// What clients see of entities: ids, metadata, queries with their pages, cleaning and purging.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import durabletask from "@microsoft/durabletask-js";

import { Scheduler, assertStatus, eventually, failsWith, newEntity, newId, output, text, verbatim, wire } from "./scheduler.mjs";

const { EntityInstanceId } = durabletask;
const scheduler = new Scheduler(["--task-hubs", "default,second"]);

// The worker takes only what it registered, so that operations of other entities wait.
before(async () => {
  await scheduler.start({ withWorker: false });
  await scheduler.startWorker({ filters: "auto" });
});
after(() => scheduler.stop());

const numbers = (count) => Array.from({ length: count }, (_, index) => index);

// ---- what the tests work with ----

const runCell = (operation) => {
  switch (operation.name) {
    case "set":
      return operation.state.setState(operation.getInput());
    case "setToNullText":
      // The SDK takes null for "no state"; this becomes a state with the JSON text null.
      return operation.state.setState({ toJSON: () => null });
    case "append":
      return operation.state.setState([...operation.state.getState([]), operation.getInput()]);
    case "get":
      return operation.state.getState();
    case "delete":
      return operation.state.setState(undefined);
  }
};
/** Registers an entity of this name that holds one value. */
const cell = (name) => scheduler.entity(name, () => ({ run: runCell }));

const plain = cell("cell");

/** Sets an entity's state and returns once it is there. */
async function set(id, value) {
  await scheduler.client.signalEntity(id, "set", value);
  await scheduler.entityReaches(id, value);
}

const callsOne = scheduler.orchestrator("callsOne", async function* (context, { entity, operation, input }) {
  return yield context.entities.callEntity(verbatim(entity), operation, input);
});

const callCell = async (entity, operation, input) => output(await scheduler.run(callsOne, { entity, operation, input }));

const locksOne = scheduler.orchestrator("locksOne", async function* (context, entity) {
  yield context.entities.lockEntities(verbatim(entity));
  yield context.waitForExternalEvent("go");
});

/** Starts an orchestration that holds this entity until its event `go`. */
async function startHolder(entity) {
  const holder = await scheduler.client.scheduleNewOrchestration(locksOne, `${entity}`);
  await scheduler.recorded(holder, "EntityLockGranted");
  return holder;
}

/** A query's entities, in the order they come. */
async function found(query, client = scheduler.client) {
  const entities = [];
  for await (const entity of client.getEntities(query)) {
    entities.push(entity);
  }
  return entities;
}

const foundIds = async (query) => (await found(query)).map((entity) => `${entity.id}`);

/** One page by the wire; `fill` sets up the query. */
async function wirePage(fill) {
  const query = new wire.EntityQuery();
  fill(query);
  const request = new wire.QueryEntitiesRequest();
  request.setQuery(query);
  const response = await scheduler.call("queryEntities", request);
  return {
    ids: response.getEntitiesList().map((entity) => entity.getInstanceid()),
    token: response.getContinuationtoken()?.getValue(),
    hasToken: response.hasContinuationtoken(),
  };
}

function wireSignal(instanceId, requestId = "") {
  const request = new wire.SignalEntityRequest();
  request.setInstanceid(instanceId);
  request.setRequestid(requestId);
  request.setName("append");
  request.setInput(text("1"));
  return scheduler.call("signalEntity", request);
}

// ---- ids ----

test("names ignore case and keys do not, whoever sends them (S-12.1, S-12.2)", async () => {
  const key = newId("Key");
  const [lower, upper] = [key.toLowerCase(), key.toUpperCase()];
  await scheduler.client.signalEntity(verbatim(`@CELL@${key}`), "append", "client");
  await callCell(`@Cell@${key}`, "append", "orchestration");
  await set(new EntityInstanceId("cELL", lower), "lower");
  await set(new EntityInstanceId(plain, upper), "upper");
  assert.deepEqual(await callCell(`@cell@${key}`, "get"), ["client", "orchestration"]);
  for (const spelled of [`@cell@${key}`, `@CeLL@${key}`]) {
    const entity = await scheduler.client.getEntity(verbatim(spelled));
    assert.deepEqual(entity.state, ["client", "orchestration"]);
    assert.equal(`${entity.id}`, `@cell@${key}`);
  }
  assert.equal(await callCell(`@CELL@${upper}`, "get"), "upper");
  assert.equal((await scheduler.client.getEntity(verbatim(`@CELL@${lower}`))).state, "lower");
});

test("the history repeats an entity's id as the orchestration spelled it (S-12.2, S-4.11)", async () => {
  const entity = `@CeLL@${newId("key")}`;
  const state = await scheduler.run(callsOne, { entity, operation: "set", input: 1 });
  const history = await scheduler.client.getOrchestrationHistory(state.instanceId);
  assert.equal(history.find((event) => event.type === "EntityOperationCalled").targetInstanceId, entity);
});

test("keys may be empty and may hold @, spaces and unicode (S-12.1)", async () => {
  for (const key of ["", "user@example.com", "@", "a b/c", "größe 🐢"]) {
    const id = new EntityInstanceId(plain, key);
    await set(id, { key });
    assert.deepEqual(await callCell(`${id}`, "get"), { key });
    const entity = await scheduler.client.getEntity(id);
    assert.deepEqual({ name: entity.id.name, key: entity.id.key }, { name: plain, key });
    assert.ok((await foundIds({ instanceIdStartsWith: `${id}` })).includes(`${id}`));
  }
});

test("an id of 100 characters is taken, and a longer one is refused naming the limit (S-12.1)", async () => {
  const longest = new EntityInstanceId(plain, newId("k".repeat(100 - "@cell@-".length - 36)));
  assert.equal(`${longest}`.length, 100);
  await set(longest, 1);
  const tooLong = new EntityInstanceId(plain, `${longest.key}x`);
  await assert.rejects(scheduler.client.signalEntity(tooLong, "set", 1), failsWith("INVALID_ARGUMENT", /100/));
});

test("malformed ids are refused (S-12.1)", async () => {
  for (const id of ["", "cell", "@cell", "@@key", "cell@key"]) {
    await assert.rejects(wireSignal(id), failsWith("INVALID_ARGUMENT"), `id "${id}"`);
  }
});

// ---- get ----

test("metadata come with or without state, and a missing entity has none (S-12.38)", async () => {
  const id = newEntity(plain);
  assert.equal(await scheduler.client.getEntity(id), undefined);
  assert.equal(await scheduler.client.getEntity(id, false), undefined);

  const earliest = Date.now();
  await set(id, { answer: 42 });
  const latest = Date.now();
  const entity = await scheduler.client.getEntity(id);
  assert.deepEqual(entity.state, { answer: 42 });
  assert.equal(entity.includesState, true);
  assert.deepEqual(entity.id, id);
  assert.equal(entity.backlogQueueSize, 0);
  assert.equal(entity.lockedBy, undefined);
  const modified = entity.lastModifiedTime.getTime();
  assert.ok(modified >= earliest - 1 && modified <= latest, `${modified} is not in ${earliest}..${latest}`);

  const bare = await scheduler.client.getEntity(id, false);
  assert.equal(bare.includesState, false);
  assert.deepEqual(bare.lastModifiedTime, entity.lastModifiedTime);
  const request = new wire.GetEntityRequest();
  request.setInstanceid(`${id}`);
  assert.equal((await scheduler.call("getEntity", request)).getEntity().hasSerializedstate(), false);

  await set(id, { answer: 43 });
  const later = (await scheduler.client.getEntity(id)).lastModifiedTime.getTime();
  assert.ok(later >= modified && later <= Date.now());
});

test("a state that is false to the language is a state all the same (S-12.6)", async () => {
  for (const value of [0, false, ""]) {
    const id = newEntity(plain);
    await set(id, value);
    assert.equal(await callCell(`${id}`, "get"), value);
  }
  const id = newEntity(plain);
  await callCell(`${id}`, "setToNullText");
  const entity = await scheduler.client.getEntity(id);
  assert.equal(entity.includesState, true);
  assert.equal(entity.state, null);
  assert.deepEqual(await foundIds({ instanceIdStartsWith: `${id}` }), [`${id}`]);
});

test("a client reads its own earlier signal, unless the answer took its full 200 ms (S-12.38)", async () => {
  const id = newEntity(plain);
  for (const round of numbers(30)) {
    await scheduler.client.signalEntity(id, "set", round);
    const asked = performance.now();
    const state = (await scheduler.client.getEntity(id))?.state;
    const took = performance.now() - asked;
    assert.ok(state === round || took >= 190, `round ${round} read ${state} after ${took} ms`);
  }
});

test("a signal that is sent again with its request id is accepted once (S-12.37)", async () => {
  const id = newEntity(plain);
  const requestId = crypto.randomUUID();
  await wireSignal(`${id}`, requestId);
  await wireSignal(`${id}`, requestId);
  await scheduler.entityReaches(id, [1]);
  await wireSignal(`${id}`, requestId);
  await wireSignal(`${id}`, "no GUID at all");
  await wireSignal(`${id}`);
  await wireSignal(`${id}`);
  assert.deepEqual(await callCell(`${id}`, "get"), [1, 1, 1, 1]);
});

test("operations that no worker takes wait in the backlog and make nothing exist (S-12.6, S-12.12, S-6.7)", async () => {
  const waiting = newEntity("nobodyrunsthis");
  await scheduler.client.signalEntity(waiting, "set", 1);
  await scheduler.client.signalEntity(waiting, "set", 2);
  const delayed = newEntity(plain);
  await scheduler.client.signalEntity(delayed, "set", 1, { signalTime: new Date(Date.now() + 3_600_000) });
  assert.equal(await scheduler.client.getEntity(waiting), undefined);
  assert.equal(await scheduler.client.getEntity(delayed), undefined);
  assert.deepEqual(await foundIds({ instanceIdStartsWith: `${waiting}` }), []);

  const [transient] = await found({ instanceIdStartsWith: `${waiting}`, includeTransient: true });
  assert.equal(`${transient.id}`, `${waiting}`);
  assert.equal(transient.backlogQueueSize, 2);
  assert.equal(transient.includesState, false);

  await set(delayed, "now");
  assert.equal((await scheduler.client.getEntity(delayed)).backlogQueueSize, 0, "a delayed signal is no backlog (S-12.44)");
});

// ---- queries ----

const shelf = cell("shelf");
cell("shelf2");

test("prefixes select by name and key, with capitals in the name and without the @ (S-12.39, S-17.2)", async () => {
  const key = newId("Q");
  const ids = [`@shelf2@${key}-a`, `@shelf@${key}-A`, `@shelf@${key}-a1`, `@shelf@${key}-a2`];
  await Promise.all(ids.map((id) => set(verbatim(id), id)));
  const a = ids.slice(2);
  for (const [prefix, expected] of [
    [`@shelf@${key}-a`, a],
    [`shelf@${key}-a`, a],
    [`@Shelf@${key}-a`, a],
    [`SHELF@${key}-a`, a],
    [`@shelf@${key}-A`, [ids[1]]],
    [`@shelf@${key}`, ids.slice(1)],
    [`@shelf@${key.toLowerCase()}`, []],
    [`@shelf2@${key}`, [ids[0]]],
    ["@SHEL", ids],
    ["shelf", ids],
    ["@shelf@", ids.slice(1)],
  ]) {
    assert.deepEqual(await foundIds({ instanceIdStartsWith: prefix }), expected, `by the SDK, ${prefix}`);
    // The SDK tidies prefixes up; other clients leave that to the server.
    const page = await wirePage((query) => query.setInstanceidstartswith(text(prefix)));
    assert.deepEqual(page.ids, expected, `by the wire, ${prefix}`);
  }
  const everything = await foundIds(undefined);
  assert.deepEqual((await wirePage((query) => query.setInstanceidstartswith(text("")))).ids, everything.slice(0, 100));
  assert.ok(ids.every((id) => everything.includes(id)));
});

test("pages follow the ids, and only the last has no token (S-12.39, S-11.12)", async () => {
  const prefix = `@shelf@${newId("page")}`;
  const ids = numbers(23).map((number) => `${prefix}-${String(number).padStart(2, "0")}`);
  await Promise.all(ids.map((id) => scheduler.client.signalEntity(verbatim(id), "set", 1)));
  await Promise.all(ids.map((id) => scheduler.entityReaches(verbatim(id), 1)));

  const pages = [];
  for await (const page of scheduler.client.getEntities({ instanceIdStartsWith: prefix, pageSize: 5 }).asPages()) {
    pages.push(page);
  }
  assert.deepEqual(pages.map((page) => page.values.length), [5, 5, 5, 5, 3]);
  assert.deepEqual(pages.flatMap((page) => page.values.map((entity) => `${entity.id}`)), ids);
  assert.deepEqual(pages.map((page) => page.hasMoreResults), [true, true, true, true, false]);

  // A token holds a position only: it goes on with another page size, and after changes behind and before it.
  const continuationToken = pages[1].continuationToken;
  await callCell(ids[3], "delete");
  await callCell(ids[12], "delete");
  const rest = await foundIds({ instanceIdStartsWith: prefix, pageSize: 100, continuationToken });
  assert.deepEqual(rest, ids.slice(10).filter((id) => id !== ids[12]));

  const exact = await wirePage((query) => query.setInstanceidstartswith(text(`${prefix}-0`)));
  assert.equal(exact.ids.length, 9);
  assert.equal(exact.hasToken, false, "the last page's token is unset");
  const broken = (token) => wirePage((query) => query.setContinuationtoken(text(token)));
  await assert.rejects(broken("no token of this server"), failsWith("INVALID_ARGUMENT"));
  assert.deepEqual((await broken("")).ids, (await wirePage(() => {})).ids, "an empty token is none");
});

test("a page has 100 entities unless its size is given (S-12.39)", async () => {
  const prefix = `@shelf@${newId("many")}`;
  const ids = numbers(120).map((number) => `${prefix}-${1_000 + number}`);
  await Promise.all(ids.map((id) => scheduler.client.signalEntity(verbatim(id), "set", number(id))));
  await eventually("all 120", async () => (await foundIds({ instanceIdStartsWith: prefix })).length === 120);
  const first = await wirePage((query) => query.setInstanceidstartswith(text(prefix)));
  assert.deepEqual(first.ids, ids.slice(0, 100));
  const second = await wirePage((query) => {
    query.setInstanceidstartswith(text(prefix));
    query.setContinuationtoken(text(first.token));
  });
  assert.deepEqual(second, { ids: ids.slice(100), token: undefined, hasToken: false });
});

/** The number that ends an id. */
const number = (id) => Number(id.split("-").at(-1));

test("queries bring states only if asked (S-12.39)", async () => {
  const id = newEntity(shelf);
  await set(id, { books: 3 });
  const [whole] = await found({ instanceIdStartsWith: `${id}` });
  assert.deepEqual(whole.state, { books: 3 });
  const [bare] = await found({ instanceIdStartsWith: `${id}`, includeState: false });
  assert.equal(bare.includesState, false);
  assert.deepEqual(bare.lastModifiedTime, whole.lastModifiedTime);
});

test("an entity with only a lock is transient, and is left out unless asked for (S-12.39)", async () => {
  const key = newId("transient");
  const [stateful, locked] = ["a", "b"].map((end) => new EntityInstanceId(shelf, `${key}-${end}`));
  await set(stateful, 1);
  const holder = await startHolder(locked);
  const query = { instanceIdStartsWith: `@shelf@${key}` };
  assert.deepEqual(await foundIds(query), [`${stateful}`]);
  const entities = await found({ ...query, includeTransient: true });
  assert.deepEqual(entities.map((entity) => `${entity.id}`), [`${stateful}`, `${locked}`]);
  assert.deepEqual(entities.map((entity) => entity.lockedBy), [undefined, holder]);
  assert.deepEqual(entities.map((entity) => entity.includesState), [true, false]);
  await scheduler.client.raiseOrchestrationEvent(holder, "go");
  assertStatus(await scheduler.finished(holder), "COMPLETED");
});

test("an entity without state, backlog and lock is not even transient (S-12.39, S-12.7)", async () => {
  const key = newId("nothing");
  const [deleted, unlocked] = ["a", "b"].map((end) => new EntityInstanceId(shelf, `${key}-${end}`));
  await set(deleted, 1);
  await callCell(`${deleted}`, "delete");
  const holder = await startHolder(unlocked);
  await scheduler.client.raiseOrchestrationEvent(holder, "go");
  assertStatus(await scheduler.finished(holder), "COMPLETED");
  assert.deepEqual(await foundIds({ instanceIdStartsWith: `@shelf@${key}`, includeTransient: true }), []);
});

test("queries show who holds an entity (S-12.36)", async () => {
  const id = newEntity(shelf);
  await set(id, 1);
  const holder = await startHolder(id);
  const query = { instanceIdStartsWith: `${id}` };
  assert.equal((await found(query))[0].lockedBy, holder);
  await scheduler.client.raiseOrchestrationEvent(holder, "go");
  assertStatus(await scheduler.finished(holder), "COMPLETED");
  assert.equal((await found(query))[0].lockedBy, undefined);
});

test("bounds of the last modification count from both ends (S-12.39)", async () => {
  const key = newId("time");
  const ids = ["a", "b"].map((end) => new EntityInstanceId(shelf, `${key}-${end}`));
  await set(ids[0], 1);
  const before = await modifiedAt(ids[0]);
  await eventually("the next millisecond", () => Date.now() > wholeMilliseconds(before) + 1);
  await set(ids[1], 1);
  const between = await modifiedAt(ids[1]);
  const select = async (from, to) => {
    const page = await wirePage((query) => {
      query.setInstanceidstartswith(text(`@shelf@${key}`));
      query.setLastmodifiedfrom(from);
      query.setLastmodifiedto(to);
    });
    return page.ids.map((id) => id.at(-1)).join("");
  };
  assert.equal(await select(before, between), "ab");
  assert.equal(await select(before, before), "a");
  assert.equal(await select(between), "b");
  assert.equal(await select(undefined, before), "a");
  // Dates of the SDK have whole milliseconds.
  const query = { instanceIdStartsWith: `@shelf@${key}`, lastModifiedFrom: new Date(wholeMilliseconds(before) + 1) };
  assert.deepEqual(await foundIds(query), [`${ids[1]}`]);
});

/** The wire's own time of the last modification, with all its nanoseconds. */
async function modifiedAt(id) {
  const request = new wire.GetEntityRequest();
  request.setInstanceid(`${id}`);
  return (await scheduler.call("getEntity", request)).getEntity().getLastmodifiedtime();
}

const wholeMilliseconds = (timestamp) => timestamp.getSeconds() * 1_000 + Math.floor(timestamp.getNanos() / 1_000_000);

test("entities of one hub are not those of another (S-1.6, S-12.3)", async () => {
  const id = newEntity(shelf);
  await set(id, "here");
  const second = scheduler.newClient({ hub: "second" });
  assert.equal(await second.getEntity(id), undefined);
  assert.deepEqual(await found({ includeTransient: true }, second), []);
});

test("entities are not orchestrations (S-12.3, S-11.1, S-11.9)", async () => {
  const id = newEntity(shelf);
  await set(id, 1);
  assert.equal(await scheduler.client.getOrchestrationState(`${id}`), undefined);
  for await (const state of scheduler.client.getAllInstances()) {
    assert.ok(!state.instanceId.startsWith("@"), `${state.instanceId} is among the orchestrations`);
  }
});

// ---- cleaning and purging ----

test("cleaning reports zeros and takes nothing away (S-12.40)", async () => {
  const id = newEntity(shelf);
  await set(id, 1);
  const deleted = newEntity(shelf);
  await set(deleted, 1);
  await callCell(`${deleted}`, "delete");
  const zeros = { continuationToken: undefined, emptyEntitiesRemoved: 0, orphanedLocksReleased: 0 };
  assert.deepEqual(await scheduler.client.cleanEntityStorage(), zeros);
  const request = { removeEmptyEntities: true, releaseOrphanedLocks: true };
  assert.deepEqual(await scheduler.client.cleanEntityStorage(request, false), zeros);
  assert.equal((await scheduler.client.getEntity(id)).state, 1);
});

test("a purge takes an idle entity with its state, and no locked one and no orchestration's (S-11.23)", async () => {
  const id = newEntity(shelf);
  await set(id, 1);
  const purge = async (isOrchestration) => {
    const request = new wire.PurgeInstancesRequest();
    request.setInstanceid(`${id}`);
    request.setIsorchestration(isOrchestration);
    const response = await scheduler.call("purgeInstances", request);
    assert.equal(response.getIscomplete().getValue(), true);
    return response.getDeletedinstancecount();
  };
  assert.equal(await purge(true), 0);
  const holder = await startHolder(id);
  assert.equal(await purge(false), 0);
  await scheduler.client.raiseOrchestrationEvent(holder, "go");
  assertStatus(await scheduler.finished(holder), "COMPLETED");
  assert.equal((await scheduler.client.getEntity(id)).state, 1);

  assert.equal((await scheduler.client.purgeOrchestration(`${id}`)).deletedInstanceCount, 1);
  assert.equal(await scheduler.client.getEntity(id), undefined);
  assert.equal(await purge(false), 0);
  await set(id, "again");
});
