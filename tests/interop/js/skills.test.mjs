// The code in the skill for JavaScript runs as it stands and prints what the skill says.
//
// Blocks marked `file=NAME` are the parts of one file, in order; a block marked `output=NAME` is what that file prints. The
// files are written to a folder of the test's own, beside the modules of this suite. All programs are started at once, each
// against a server of its own, for all of them name the hub `default`.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { Server } from "./server.mjs";

const SUITE = path.dirname(fileURLToPath(import.meta.url));
const REPOSITORY = path.resolve(SUITE, "../../..");
const BINARY = process.env.MAINSPRING_BIN || path.join(REPOSITORY, "target/debug/mainspring");
const MS_MAX = 60_000;

const skill = readFileSync(path.join(REPOSITORY, ".github/skills/durable-task-javascript/SKILL.md"), "utf8");
const blocks = [...skill.matchAll(/^```(.*)\n((?:.*\n)*?)```$/gm)].map(([, kind, text]) => ({ kind, text }));

/** The text of all blocks with this mark, by file name. */
function assembled(mark) {
  const parts = {};
  for (const { kind, text } of blocks) {
    const name = new RegExp(` ${mark}=(\\S+)$`).exec(kind)?.[1];
    if (name !== undefined) {
      parts[name] = (parts[name] ?? "") + text;
    }
  }
  return parts;
}

const files = assembled("file");
const outputs = assembled("output");
const programs = Object.keys(files).filter((name) => name in outputs);
const suites = Object.keys(files).filter((name) => name.endsWith(".test.mjs"));

const folder = mkdtempSync(path.join(tmpdir(), "mainspring-js-skill-"));
const runs = new Map();

before(async () => {
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(path.join(folder, name), text);
  }
  symlinkSync(path.join(SUITE, "node_modules"), path.join(folder, "node_modules"), "dir");
  await Promise.all(
    [...programs, ...suites].map(async (name) => {
      const server = new Server();
      await server.start();
      const env = { ...process.env, MAINSPRING_ADDRESS: server.address, MAINSPRING_BIN: BINARY };
      delete env.NODE_TEST_CONTEXT; // a test of the skill is to report as if nothing were around it
      const how = suites.includes(name) ? ["--test", name] : [name];
      const ended = promisify(execFile)(process.execPath, how, { cwd: folder, env, timeout: MS_MAX });
      ended.catch(() => undefined); // the test that waits for it reports it
      runs.set(name, { server, ended });
    }),
  );
});

after(async () => {
  for (const { ended } of runs.values()) {
    ended.child.kill();
  }
  await Promise.all([...runs.values()].map(({ server }) => server.stop()));
  rmSync(folder, { recursive: true, force: true });
});

/** What a run printed, once it has ended well. */
async function printed(name) {
  try {
    return (await runs.get(name).ended).stdout;
  } catch (error) {
    assert.fail(`${error.message}\n${error.stdout}\n${error.stderr}`);
  }
}

for (const name of programs) {
  test(`program ${name} of the skill prints what the skill says`, async () => {
    assert.equal(await printed(name), outputs[name]);
  });
}

for (const name of suites) {
  test(`test ${name} of the skill passes`, async () => {
    const report = await printed(name);
    assert.match(report, /^\S+ pass [1-9]/m);
    assert.match(report, /^\S+ fail 0$/m);
  });
}

test("every block of the skill is run or marked as wrong", () => {
  for (const { kind, text } of blocks) {
    assert.match(kind, /^(sh|js wrong|js file=[\w.]+\.mjs|text output=\w+\.mjs)$/, text);
  }
  assert.ok(programs.length > 0 && suites.length > 0);
  for (const name of Object.keys(outputs)) {
    assert.ok(name in files, `nothing prints the output of ${name}`);
  }
  for (const name of Object.keys(files).filter((name) => !programs.includes(name) && !suites.includes(name))) {
    assert.ok(programs.some((program) => files[program].includes(`from "./${name}"`)), `nothing uses ${name}`);
  }
});

test("the skill installs the versions that the tests run", () => {
  const tested = JSON.parse(readFileSync(path.join(SUITE, "package.json"), "utf8")).dependencies;
  const installed = /^npm install (.+)$/m.exec(skill)[1].split(" ");
  for (const dependency of installed) {
    const [, name, version] = /^(.+)@(.+)$/.exec(dependency);
    assert.equal(version, tested[name], name);
  }
});
