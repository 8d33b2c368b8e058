// What a test file works with: one server, one client and one worker of the published SDK.
//
// A file registers its orchestrators, activities and entities beside the tests that use them, then calls `start` in
// `before` and `stop` in `after`. Calls for which the SDK has no method go through the stub that the SDK itself generated.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";

import grpc from "@grpc/grpc-js";
import durabletask from "@microsoft/durabletask-js";

import { Server } from "./server.mjs";

const { EntityInstanceId, NoOpLogger, OrchestrationStatus, TaskHubGrpcClient, TaskHubGrpcWorker } = durabletask;
const require = createRequire(import.meta.url);

/** The wire messages as the SDK's own package carries them. */
export const wire = require("@microsoft/durabletask-js/dist/proto/orchestrator_service_pb");
const { TaskHubSidecarServiceClient } = require("@microsoft/durabletask-js/dist/proto/orchestrator_service_grpc_pb");
const { StringValue } = require("google-protobuf/google/protobuf/wrappers_pb");

/** How long a wait may take before the test fails, in seconds. */
const WAIT_SECONDS_MAX = 30;

/** A fresh instance id that says which test it belongs to. */
export function newId(prefix) {
  return `${prefix}-${randomUUID()}`;
}

/** The id of an entity that no other test has. */
export function newEntity(name, keyPrefix = "key") {
  return new EntityInstanceId(name, newId(keyPrefix));
}

/** An entity id that the SDK passes on as it stands, while its own class lower-cases the name. */
export function verbatim(id) {
  return { toString: () => id };
}

/** A string value as the wire wraps it. */
export function text(value) {
  const wrapped = new StringValue();
  wrapped.setValue(value);
  return wrapped;
}

/** A door that stays shut until `open` is called; activities and orchestrators wait at `passed`. */
export function gate() {
  let open;
  const passed = new Promise((resolve) => {
    open = resolve;
  });
  return { passed, open };
}

/** Asks again until `probe` returns something truthy, and returns that. `what` is a text or makes one at the end. */
export async function eventually(what, probe, seconds = WAIT_SECONDS_MAX) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await probe();
    if (found) {
      return found;
    }
    if (Date.now() >= deadline) {
      assert.fail(`${typeof what === "function" ? what() : what} did not come true within ${seconds} s`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Takes an entity operation's failure apart, as the SDK hands it to an orchestrator. */
export function operationFailure(error) {
  const { errorType: type, errorMessage: message } = error.failureDetails;
  return { type, message, entity: error.entityId.toString(), operation: error.operationName };
}

/** Compares a state's status by name and shows the failure if it is another one. */
export function assertStatus(state, expected) {
  const actual = OrchestrationStatus[state?.runtimeStatus];
  const failure = state?.failureDetails;
  const detail = failure ? ` (${failure.errorType}: ${failure.message})` : "";
  assert.equal(actual, expected, `instance ${state?.instanceId} is ${actual}${detail}, not ${expected}`);
}

/** A completed state's output, parsed. */
export function output(state) {
  assertStatus(state, "COMPLETED");
  return state.serializedOutput === undefined ? undefined : JSON.parse(state.serializedOutput);
}

/** Makes a predicate for `assert.rejects`: a gRPC error of this code whose text matches. */
export function failsWith(code, pattern = /./) {
  return (error) => {
    const cause = error.code === undefined ? (error.cause ?? error) : error;
    assert.equal(grpc.status[cause.code], code, `unexpected error: ${error.stack}`);
    assert.match(cause.details, pattern);
    return true;
  };
}

/** Metadata that names a task hub; without one none is sent, as plain clients do, and the default hub answers (S-1.6). */
function metadataFor(hub) {
  return async () => {
    const metadata = new grpc.Metadata();
    if (hub !== undefined) {
      metadata.set("taskhub", hub);
    }
    return metadata;
  };
}

export class Scheduler {
  server;
  client;

  #orchestrators = new Map();
  #activities = new Map();
  #entities = new Map();
  #clients = [];
  #workers = [];
  #openStub;

  constructor(serverArguments = []) {
    this.server = new Server(serverArguments);
  }

  /** Registers an orchestrator for the default worker; returns its name. */
  orchestrator(name, body) {
    this.#orchestrators.set(name, body);
    return name;
  }

  /** Registers an activity for the default worker; returns its name. */
  activity(name, body) {
    this.#activities.set(name, body);
    return name;
  }

  /** Registers an entity for the default worker: `factory` makes the object that runs one batch. Returns its name. */
  entity(name, factory) {
    this.#entities.set(name, factory);
    return name;
  }

  /** Starts the server, a client and, unless the file wants to start its own, the default worker. */
  async start({ withWorker = true } = {}) {
    await this.server.start();
    this.client = this.newClient();
    if (withWorker) {
      await this.startWorker();
    }
  }

  newClient({ hub, defaultVersion } = {}) {
    const client = new TaskHubGrpcClient({
      hostAddress: this.server.address,
      metadataGenerator: metadataFor(hub),
      logger: new NoOpLogger(),
      defaultVersion,
    });
    this.#clients.push(client);
    return client;
  }

  /** Starts a worker; without `orchestrators`, `activities` and `entities` it runs all that the file registered. */
  async startWorker({
    hub,
    filters,
    versioning,
    orchestrators = [...this.#orchestrators.keys()],
    activities = [...this.#activities.keys()],
    entities = [...this.#entities.keys()],
  } = {}) {
    const worker = new TaskHubGrpcWorker({
      hostAddress: this.server.address,
      metadataGenerator: metadataFor(hub),
      logger: new NoOpLogger(),
      workItemFilters: filters,
      versioning,
    });
    for (const name of orchestrators) {
      worker.addNamedOrchestrator(name, this.#orchestrators.get(name));
    }
    for (const name of activities) {
      worker.addNamedActivity(name, this.#activities.get(name));
    }
    for (const name of entities) {
      worker.addNamedEntity(name, this.#entities.get(name));
    }
    await worker.start();
    this.#workers.push(worker);
    return worker;
  }

  /** Stops one worker ahead of the others. */
  async stopWorker(worker) {
    this.#workers = this.#workers.filter((other) => other !== worker);
    await worker.stop();
  }

  /** One unary call by its wire name, such as `startInstance`. */
  async call(method, request, hub) {
    const metadata = await metadataFor(hub)();
    return new Promise((resolve, reject) => {
      this.#stub()[method](request, metadata, (error, response) => (error ? reject(error) : resolve(response)));
    });
  }

  /** The history's wire events, which hold more than the SDK's own history objects show. */
  async wireHistory(instanceId, executionId) {
    const request = new wire.StreamInstanceHistoryRequest();
    request.setInstanceid(instanceId);
    if (executionId !== undefined) {
      request.setExecutionid(text(executionId));
    }
    const events = [];
    for await (const chunk of this.#stub().streamInstanceHistory(request)) {
      events.push(...chunk.getEventsList());
    }
    return events;
  }

  /** The state's wire message, for fields that the SDK does not pass on. */
  async wireState(instanceId) {
    const request = new wire.GetInstanceRequest();
    request.setInstanceid(instanceId);
    request.setGetinputsandoutputs(true);
    return (await this.call("getInstance", request)).getOrchestrationstate();
  }

  /** The types of an instance's history, in order. */
  async historyTypes(instanceId) {
    return (await this.client.getOrchestrationHistory(instanceId)).map((event) => event.type);
  }

  /** Starts an instance and returns its final state. */
  async run(name, input, options) {
    return this.finished(await this.client.scheduleNewOrchestration(name, input, options));
  }

  /** Waits until an entity's state is `expected`; with undefined, until it does not exist. */
  async entityReaches(id, expected) {
    let seen;
    const describe = () => `entity ${id} with state ${JSON.stringify(expected)} (it has ${JSON.stringify(seen)})`;
    await eventually(describe, async () => {
      seen = (await this.client.getEntity(id))?.state;
      return isDeepStrictEqual(seen, expected);
    });
  }

  /** Waits until an instance's history holds at least `count` events of a type. */
  async recorded(instanceId, type, count = 1) {
    await eventually(`${count} ${type} in the history of ${instanceId}`, async () => {
      const types = await this.historyTypes(instanceId);
      return types.filter((other) => other === type).length >= count;
    });
  }

  /** Waits for an instance's end and returns its state with payloads. */
  async finished(instanceId, seconds = WAIT_SECONDS_MAX) {
    return this.client.waitForOrchestrationCompletion(instanceId, true, seconds);
  }

  /** Waits until an instance has committed its first episode. */
  async started(instanceId) {
    return this.client.waitForOrchestrationStart(instanceId, true, WAIT_SECONDS_MAX);
  }

  /**
   * Kills the server and starts it again on the same folder and port.
   *
   * Workers find their way back by themselves. Clients would, too, but only after a pause that grows with each
   * failed attempt, so the test gets a fresh one.
   */
  async killAndRestart() {
    await this.server.killAndRestart();
    this.#openStub?.close();
    this.#openStub = undefined;
    this.client = this.newClient();
  }

  /** Stops workers, clients and the server. The SDK pauses a second for each, so they are stopped side by side. */
  async stop() {
    await Promise.all([...this.#workers, ...this.#clients].map((part) => part.stop()));
    this.#openStub?.close();
    await this.server.stop();
  }

  /** The stub that the SDK generated, on a connection of its own. */
  #stub() {
    this.#openStub ??= new TaskHubSidecarServiceClient(this.server.address, grpc.credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
    });
    return this.#openStub;
  }
}
