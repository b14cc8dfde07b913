// Starts and stops the server under test; MIDGE_TEST_SERVER names its program.
import { spawn } from "node:child_process";
import { mkdtempSync, openSync, closeSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import path from "node:path";

const WAIT_MS_MAX = 20_000;

const program =
  process.env.MIDGE_TEST_SERVER ??
  fileURLToPath(new URL("../../../target/debug/midge", import.meta.url));

/** Polls until the condition holds; the deadline is for a broken server only. */
export async function until(what, condition) {
  const deadline = Date.now() + WAIT_MS_MAX;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited ${WAIT_MS_MAX} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** One server process on a port of its own, which it keeps over a restart. */
export class Server {
  port = -1;
  dir = mkdtempSync(path.join(tmpdir(), "midge-interop-"));

  static async start() {
    const server = new Server();
    await server.start();
    return server;
  }

  get url() {
    return `nats://127.0.0.1:${this.port}`;
  }

  async start() {
    const log = openSync(path.join(this.dir, "server.log"), "a");
    const flags = ["-a", "127.0.0.1", "-p", `${this.port}`, "--ports_file_dir", this.dir];
    this.process = spawn(program, flags, { stdio: ["ignore", log, log] });
    closeSync(log);
    // The ports file is written once the listener is open.
    await until("the ports file", () => {
      if (this.process.exitCode !== null) {
        const text = readFileSync(path.join(this.dir, "server.log"), "utf8");
        throw new Error(`the server did not start:\n${text}`);
      }
      return this.#readPort();
    });
  }

  #readPort() {
    const name = readdirSync(this.dir).find((f) => f.endsWith(`_${this.process.pid}.ports`));
    if (!name) return false;
    try {
      const { nats } = JSON.parse(readFileSync(path.join(this.dir, name), "utf8"));
      this.port = Number(nats[0].split(":").at(-1));
      return true;
    } catch {
      return false; // half written
    }
  }

  /** As a power cut does it. */
  async kill() {
    const gone = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await gone;
  }

  lameDuck() {
    this.process.kill("SIGUSR2");
  }

  async close() {
    if (this.process.exitCode === null && this.process.signalCode === null) await this.kill();
    rmSync(this.dir, { recursive: true, force: true });
  }
}
