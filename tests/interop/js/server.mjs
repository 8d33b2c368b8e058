// Starts, kills and stops a real `mainspring` process in a data folder of its own.
//
// It never looks for processes by name: whatever it ends, it started, and it ends it by pid. The ports are chosen
// by the system; a restart asks for the same one again, as a service supervisor would.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const REPOSITORY = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../..");

/** The binary under test: `MAINSPRING_BIN`, else the debug build of this repository. */
const BINARY = process.env.MAINSPRING_BIN || path.join(REPOSITORY, "target/debug/mainspring");

/** Opening a store takes at most 25 s by the protocol's rules (S-1.16); a loaded machine gets a little more. */
const START_MS_MAX = 30_000;

/** A drained server has to be gone within 10 s; the rest is for a loaded machine. */
const STOP_MS_MAX = 15_000;

/** How much of the server's own log a failure shows, in characters. */
const LOG_CHARACTERS_MAX = 8_000;

export class Server {
  /** Where clients connect, `host:port`; stays the same over restarts. */
  address;
  /** Where `/healthz` is served, `host:port`. */
  healthAddress;

  #arguments;
  #dataFolder = mkdtempSync(path.join(tmpdir(), "mainspring-js-"));
  #process;
  #log = "";

  /** `extraArguments` follow `serve` and the addresses, such as `["--task-hubs", "default,second"]`. */
  constructor(extraArguments = []) {
    this.#arguments = extraArguments;
  }

  /** Starts the process and returns once both addresses were printed. Fails with the server's log otherwise. */
  async start() {
    if (!existsSync(BINARY)) {
      throw new Error(`no server binary at ${BINARY}: build it, or name one in MAINSPRING_BIN`);
    }
    this.#log = "";
    const child = spawn(
      BINARY,
      [
        "serve",
        "--data-dir",
        this.#dataFolder,
        "--grpc-addr",
        this.address ?? "127.0.0.1:0",
        "--health-addr",
        this.healthAddress ?? "127.0.0.1:0",
        ...this.#arguments,
      ],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    this.#process = child;
    const keep = (text) => {
      this.#log = (this.#log + text).slice(-LOG_CHARACTERS_MAX);
    };
    child.stderr.setEncoding("utf8").on("data", keep);
    child.stdout.setEncoding("utf8");

    let printed = "";
    await new Promise((resolve, reject) => {
      const fail = (why) => {
        clearTimeout(timeout);
        child.kill("SIGKILL");
        reject(new Error(`${BINARY} ${why}; it wrote:\n${this.#log}`));
      };
      const timeout = setTimeout(() => fail(`printed no addresses within ${START_MS_MAX} ms`), START_MS_MAX);
      child.once("error", (error) => fail(`could not be started: ${error.message}`));
      child.once("exit", (code, signal) => fail(`ended with ${signal ?? `exit code ${code}`} while starting`));
      child.stdout.on("data", (text) => {
        keep(text);
        if (this.#isReady(printed)) {
          return;
        }
        printed += text;
        if (this.#isReady(printed)) {
          clearTimeout(timeout);
          child.removeAllListeners("exit");
          resolve();
        }
      });
    });
  }

  /** Whether `printed` holds both addresses; takes them over if so. */
  #isReady(printed) {
    const grpc = /^grpc listening on (\S+:\d+)\s*$/m.exec(printed);
    const health = /^health listening on (\S+:\d+)\s*$/m.exec(printed);
    if (!grpc || !health) {
      return false;
    }
    this.address = grpc[1];
    this.healthAddress = health[1];
    return true;
  }

  /** Ends the process at once, as a power cut would, and returns when it is gone. */
  async kill() {
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await ended;
    this.#process = undefined;
  }

  /** Kills the process and starts it again on the same folder and ports. */
  async killAndRestart() {
    await this.kill();
    await this.start();
  }

  /** Asks the process to drain and removes the data folder. Fails unless it ends by itself with exit code 0. */
  async stop() {
    const child = this.#process;
    this.#process = undefined;
    try {
      if (child && child.exitCode === null && child.signalCode === null) {
        const ended = once(child, "exit");
        child.kill("SIGTERM");
        const timeout = setTimeout(() => child.kill("SIGKILL"), STOP_MS_MAX);
        await ended;
        clearTimeout(timeout);
      }
      if (child && child.exitCode !== 0) {
        const how = child.signalCode ?? `exit code ${child.exitCode}`;
        throw new Error(`the server ended with ${how} instead of exit code 0; it wrote:\n${this.#log}`);
      }
    } finally {
      rmSync(this.#dataFolder, { recursive: true, force: true });
    }
  }
}
