// Counts the words of many texts at once and adds them up.
//
// In this folder, with a scheduler at localhost:8080 (or the address in MAINSPRING_ADDRESS, the task hub in MAINSPRING_TASKHUB):
//
//     npm ci && node fan_out_fan_in.mjs

import grpc from "@grpc/grpc-js";
import durabletask from "@microsoft/durabletask-js";

const { NoOpLogger, TaskHubGrpcClient, TaskHubGrpcWorker, whenAll } = durabletask;

const connection = {
  hostAddress: process.env.MAINSPRING_ADDRESS ?? "localhost:8080",
  metadataGenerator: async () => {
    const metadata = new grpc.Metadata();
    metadata.set("taskhub", process.env.MAINSPRING_TASKHUB ?? "default");
    return metadata;
  },
  logger: new NoOpLogger(),
};

async function* totalWords(context, texts) {
  // All are under way before the first is waited for; the results come back in the order of the texts.
  const each = yield whenAll(texts.map((text) => context.callActivity(countWords, text)));
  return { each, total: each.reduce((sum, count) => sum + count, 0) };
}

async function countWords(_context, text) {
  return text.split(" ").length;
}

// "auto": this worker takes its own work alone.
const worker = new TaskHubGrpcWorker({ ...connection, workItemFilters: "auto" });
worker.addOrchestrator(totalWords);
worker.addActivity(countWords);
await worker.start();

const client = new TaskHubGrpcClient(connection);
const texts = ["the quick brown fox", "jumps over", "the lazy dog"];
const count = await client.scheduleNewOrchestration(totalWords, texts);
const state = await client.waitForOrchestrationCompletion(count, true, 60);
state.raiseIfFailed();
console.log(JSON.parse(state.serializedOutput));
await worker.stop();
await client.stop();
