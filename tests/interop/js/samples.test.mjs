// Each JavaScript sample, run as its head says, prints what it is there to show.
//
// The samples are copied to a folder of the test's own, beside the modules of this suite, so that nothing is installed
// twice. All are started at once, each in a task hub of its own, so that their waits overlap.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { Server } from "./server.mjs";

const SUITE = path.dirname(fileURLToPath(import.meta.url));
const SAMPLES = path.resolve(SUITE, "../../../samples/javascript");
const MS_MAX = 60_000;

/** Each sample with its options, and what it prints. */
const RUNS = {
  "sequence.mjs": ["a cup of coffee of ground arabica"],
  "fan_out_fan_in.mjs": ["{ each: [ 4, 2, 3 ], total: 9 }"],
  "human_interaction.mjs": ["please approve 120 euros", "paid"],
  "human_interaction.mjs --reject": ["please approve 120 euros", "rejected"],
  "human_interaction.mjs --ignore": ["please approve 120 euros", "nobody answered"],
};

const server = new Server(["--dynamic-task-hubs"]);
const folder = mkdtempSync(path.join(tmpdir(), "mainspring-js-samples-"));
const running = new Map();

before(async () => {
  await server.start();
  cpSync(SAMPLES, folder, { recursive: true, filter: (source) => path.basename(source) !== "node_modules" });
  symlinkSync(path.join(SUITE, "node_modules"), path.join(folder, "node_modules"), "dir");
  Object.keys(RUNS).forEach((run, number) => {
    const env = { ...process.env, MAINSPRING_ADDRESS: server.address, MAINSPRING_TASKHUB: `sample-${number}` };
    const ended = promisify(execFile)(process.execPath, run.split(" "), { cwd: folder, env, timeout: MS_MAX });
    ended.catch(() => undefined); // the test that waits for it reports it
    running.set(run, ended);
  });
});

after(async () => {
  running.forEach((ended) => ended.child.kill());
  await Promise.allSettled(running.values());
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

for (const [run, printed] of Object.entries(RUNS)) {
  test(`sample ${run} prints what it shows and ends well`, async () => {
    const { stdout } = await running.get(run).catch((error) => {
      assert.fail(`${error.message}\n${error.stdout}\n${error.stderr}`);
    });
    assert.deepEqual(stdout.trimEnd().split("\n"), printed);
  });
}

test("each sample's head has the command that runs it, and the tests run that command", () => {
  for (const name of new Set(Object.keys(RUNS).map((run) => run.split(" ")[0]))) {
    const command = /^\/\/ {5}npm ci && node (.+)$/m.exec(readFileSync(path.join(SAMPLES, name), "utf8"));
    assert.ok(command, `${name} has no command in its head`);
    assert.ok(command[1] in RUNS, `nothing runs ${command[1]}`);
    assert.ok(command[1].startsWith(name), `${name} says to run ${command[1]}`);
  }
});

test("the samples install the versions of the SDK that the tests run", () => {
  const dependencies = (file) => JSON.parse(readFileSync(file, "utf8")).dependencies;
  const tested = dependencies(path.join(SUITE, "package.json"));
  for (const [name, version] of Object.entries(dependencies(path.join(SAMPLES, "package.json")))) {
    assert.equal(version, tested[name], name);
  }
  const { packages } = JSON.parse(readFileSync(path.join(SAMPLES, "package-lock.json"), "utf8"));
  assert.equal(packages["node_modules/@microsoft/durabletask-js"].version, tested["@microsoft/durabletask-js"]);
});
