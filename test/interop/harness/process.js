// A participant in a process of its own that takes commands as lines of JSON.
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { createInterface } from "node:readline";

const CALL_DEADLINE_MS = 60_000;

export class ProcessParticipant {
  constructor(command, args, logPath) {
    const log = openSync(logPath, "a");
    const env = { ...process.env, PYTHONUNBUFFERED: "1", RUST_LOG: "livekit=info" };
    this.child = spawn(command, args, { stdio: ["pipe", "pipe", log], env });
    closeSync(log);
    this.waiting = new Map();
    this.next = 1;
    this.child.stdin.on("error", () => {});
    createInterface({ input: this.child.stdout }).on("line", (line) => this.#answer(line));
    this.child.once("exit", (code, signal) => {
      this.ended = `the process ended (${code ?? signal}), see ${logPath}`;
      for (const { reject } of this.waiting.values()) reject(new Error(this.ended));
    });
  }

  #answer(line) {
    if (!line.startsWith("{")) return;
    const { id, result, error } = JSON.parse(line);
    const call = this.waiting.get(id);
    this.waiting.delete(id);
    if (error === undefined) call?.resolve(result);
    else call?.reject(new Error(error));
  }

  call(method, params = {}) {
    if (this.ended) return Promise.reject(new Error(this.ended));
    const id = this.next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method} did not return`)), CALL_DEADLINE_MS);
      const settle = (act) => (value) => {
        clearTimeout(timer);
        act(value);
      };
      this.waiting.set(id, { resolve: settle(resolve), reject: settle(reject) });
      this.child.stdin.write(`${JSON.stringify({ id, method, params })}\n`);
    });
  }

  async stop() {
    if (this.ended) return;
    const exit = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.stdin.end();
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 10_000);
    await exit;
    clearTimeout(timer);
  }
}
