// A JavaScript program beside others: a client that is given one thing to do, or a worker.
//
// ADDRESS HUB start NAME ID INPUT      prints the id
// ADDRESS HUB event ID NAME TEXT
// ADDRESS HUB wait ID                  prints the output, as stored
// ADDRESS HUB query ID                 prints the status
// ADDRESS HUB work                     offers activity js_step, and nothing else, until it is killed

import grpc from "@grpc/grpc-js";
import durabletask from "@microsoft/durabletask-js";

const { NoOpLogger, OrchestrationStatus, TaskHubGrpcClient, TaskHubGrpcWorker } = durabletask;
const [address, hub, verb, ...rest] = process.argv.slice(2);

const options = {
  hostAddress: address,
  logger: new NoOpLogger(),
  metadataGenerator: async () => {
    const metadata = new grpc.Metadata();
    metadata.set("taskhub", hub);
    return metadata;
  },
};

if (verb === "work") {
  const worker = new TaskHubGrpcWorker({ ...options, workItemFilters: "auto" });
  worker.addNamedActivity("js_step", (_, text) => `${text} js`);
  await worker.start();
  console.log("working");
} else {
  const client = new TaskHubGrpcClient(options);
  if (verb === "start") {
    console.log(await client.scheduleNewOrchestration(rest[0], rest[2], rest[1]));
  } else if (verb === "event") {
    await client.raiseOrchestrationEvent(rest[0], rest[1], rest[2]);
  } else if (verb === "wait") {
    console.log((await client.waitForOrchestrationCompletion(rest[0], true, 60)).serializedOutput);
  } else if (verb === "query") {
    console.log(OrchestrationStatus[(await client.getOrchestrationState(rest[0], false)).runtimeStatus]);
  } else {
    throw new Error(`unknown: ${verb}`);
  }
  await client.stop();
}
