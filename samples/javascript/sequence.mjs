// Three activities in a row, each given what the one before returned.
//
// In this folder, with a scheduler at localhost:8080 (or the address in MAINSPRING_ADDRESS, the task hub in MAINSPRING_TASKHUB):
//
//     npm ci && node sequence.mjs

import grpc from "@grpc/grpc-js";
import durabletask from "@microsoft/durabletask-js";

const { NoOpLogger, TaskHubGrpcClient, TaskHubGrpcWorker } = durabletask;

const connection = {
  hostAddress: process.env.MAINSPRING_ADDRESS ?? "localhost:8080",
  metadataGenerator: async () => {
    const metadata = new grpc.Metadata();
    metadata.set("taskhub", process.env.MAINSPRING_TASKHUB ?? "default");
    return metadata;
  },
  logger: new NoOpLogger(),
};

async function* orderCoffee(context, beans) {
  const ground = yield context.callActivity(grind, beans);
  const coffee = yield context.callActivity(brew, ground);
  return yield context.callActivity(pour, coffee);
}

async function grind(_context, beans) {
  return `ground ${beans}`;
}

async function brew(_context, ground) {
  return `coffee of ${ground}`;
}

async function pour(_context, coffee) {
  return `a cup of ${coffee}`;
}

// "auto": this worker takes its own work alone.
const worker = new TaskHubGrpcWorker({ ...connection, workItemFilters: "auto" });
worker.addOrchestrator(orderCoffee);
worker.addActivity(grind);
worker.addActivity(brew);
worker.addActivity(pour);
await worker.start();

const client = new TaskHubGrpcClient(connection);
const order = await client.scheduleNewOrchestration(orderCoffee, "arabica");
const state = await client.waitForOrchestrationCompletion(order, true, 60);
state.raiseIfFailed();
console.log(JSON.parse(state.serializedOutput));
await worker.stop();
await client.stop();
