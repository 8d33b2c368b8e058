// An expense waits for a person's approval, but not for ever.
//
// Approves by itself after a moment; with --reject it rejects, with --ignore nobody answers and the time runs out.
// In this folder, with a scheduler at localhost:8080 (or the address in MAINSPRING_ADDRESS, the task hub in MAINSPRING_TASKHUB):
//
//     npm ci && node human_interaction.mjs --reject

import { setTimeout as pause } from "node:timers/promises";

import grpc from "@grpc/grpc-js";
import durabletask from "@microsoft/durabletask-js";

const { NoOpLogger, TaskHubGrpcClient, TaskHubGrpcWorker, whenAny } = durabletask;

const connection = {
  hostAddress: process.env.MAINSPRING_ADDRESS ?? "localhost:8080",
  metadataGenerator: async () => {
    const metadata = new grpc.Metadata();
    metadata.set("taskhub", process.env.MAINSPRING_TASKHUB ?? "default");
    return metadata;
  },
  logger: new NoOpLogger(),
};

async function* expense(context, euros) {
  yield context.callActivity(askManager, euros);
  const approval = context.waitForExternalEvent("approval");
  // Three days in real life. The wait survives restarts of everything.
  const deadline = context.createTimer(5); // seconds
  const winner = yield whenAny([approval, deadline]);
  if (winner === deadline) {
    return "nobody answered";
  }
  deadline.cancel();
  return approval.getResult() ? "paid" : "rejected";
}

async function askManager(_context, euros) {
  console.log(`please approve ${euros} euros`);
}

// "auto": this worker takes its own work alone.
const worker = new TaskHubGrpcWorker({ ...connection, workItemFilters: "auto" });
worker.addOrchestrator(expense);
worker.addActivity(askManager);
await worker.start();

const client = new TaskHubGrpcClient(connection);
const claim = await client.scheduleNewOrchestration(expense, 120);
if (!process.argv.includes("--ignore")) {
  await pause(1000); // the manager thinks
  await client.raiseOrchestrationEvent(claim, "approval", !process.argv.includes("--reject"));
}
const state = await client.waitForOrchestrationCompletion(claim, true, 60);
state.raiseIfFailed();
console.log(JSON.parse(state.serializedOutput));
await worker.stop();
await client.stop();
