// One Parlor of its own for each test, on free ports, stopped by its process id.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createSocket } from "node:dgram";
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "./until.js";

// With `mediaThreads` the server opens one UDP port for each, counting up from the first.
const UDP_PORTS = 16;
const START_DEADLINE_MS = 20_000;
const STOP_DEADLINE_MS = 15_000;

export const API_KEY = "devkey";
export const API_SECRET = "secret";

async function freeTcpPort() {
  const probe = createServer();
  probe.listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}

// Below the ports that the system draws: the server takes it on every address. Above 10080, which
// fetch refuses (https://fetch.spec.whatwg.org/#port-blocking).
async function freeMediaTcpPort() {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = 11_000 + Math.floor(Math.random() * 9_000);
    const probe = createServer();
    const free = await new Promise((resolve) => {
      probe.once("error", () => resolve(false));
      probe.listen(port, () => resolve(true));
    });
    if (!free) continue;
    probe.close();
    await once(probe, "close");
    return port;
  }
  throw new Error("no free TCP port was found");
}

async function bindUdp(port) {
  const socket = createSocket("udp4");
  return new Promise((resolve) => {
    socket.once("error", () => resolve(null));
    socket.bind(port, "127.0.0.1", () => resolve(socket));
  });
}

// The first of a run of free UDP ports.
async function freeUdpPorts() {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const first = 20_000 + Math.floor(Math.random() * 30_000);
    const sockets = [];
    for (let port = first; port < first + UDP_PORTS; port += 1) sockets.push(await bindUdp(port));
    const free = sockets.every((socket) => socket !== null);
    await Promise.all(sockets.filter(Boolean).map((socket) => new Promise((done) => socket.close(done))));
    if (free) return first;
  }
  throw new Error("no run of free UDP ports was found");
}

export class Server {
  // `binary` is the parlor binary, `folder` takes its log, `config` is the text of a config file.
  // Without `dev` the keys are for `config` to say. `mediaThreads` have a port each; else one for each processor share one.
  static async start(binary, folder, config, { dev = true, mediaThreads } = {}) {
    mkdirSync(folder, { recursive: true });
    const port = await freeTcpPort();
    const udpPort = await freeUdpPorts();
    const tcpPort = await freeMediaTcpPort();
    const metricsPort = await freeMediaTcpPort();
    const args = ["serve", ...(dev ? ["--dev"] : []), "--port", String(port), "--udp-port", mediaThreads ? `${udpPort}-${udpPort + mediaThreads - 1}` : String(udpPort), "--rtc.tcp_port", String(tcpPort), "--prometheus.port", String(metricsPort)];
    if (config) {
      writeFileSync(join(folder, "config.yaml"), config);
      args.push("--config", join(folder, "config.yaml"));
    }
    const logPath = join(folder, `server-${port}.log`);
    const log = openSync(logPath, "w");
    const child = spawn(binary, args, { stdio: ["ignore", log, log] });
    closeSync(log);
    const server = new Server(child, port, metricsPort, logPath);
    try {
      await until("the server answers", START_DEADLINE_MS, async () => {
        if (server.exited()) throw new Error(`the server ended at once:\n${server.log()}`);
        return fetch(`${server.httpUrl}/`).then((answer) => answer.ok, () => false);
      });
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
    return server;
  }

  constructor(child, port, metricsPort, logPath) {
    this.child = child;
    this.url = `ws://127.0.0.1:${port}`;
    this.urlV6 = `ws://[::1]:${port}`;
    this.httpUrl = `http://127.0.0.1:${port}`;
    this.metricsUrl = `http://127.0.0.1:${metricsPort}/metrics`;
    this.logPath = logPath;
    this.failure = null;
    child.once("error", (error) => (this.failure = error));
  }

  // Processor time that it has used, from /proc.
  cpuSeconds() {
    const fields = readFileSync(`/proc/${this.child.pid}/stat`, "utf8").split(") ")[1].split(" ");
    // utime and stime, in ticks of 10 ms.
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }

  // Packets that it received or was to send and that did not leave, by cause, and those that the
  // kernel had no room for, in any socket of this machine.
  async lost() {
    const page = await fetch(this.metricsUrl).then((answer) => answer.text());
    const lost = {};
    for (const [, kind, count] of page.matchAll(/^parlor_(?:media|socket)_total\{.*kind="((?:unsent|receive_overflow|send)_?\w*)"\} (\d+)$/gm)) {
      if (kind !== "send_calls") lost[kind] = (lost[kind] ?? 0) + Number(count);
    }
    const [names, counts] = readFileSync("/proc/net/snmp", "utf8").split("\n").filter((line) => line.startsWith("Udp:")).map((line) => line.split(" "));
    for (const name of ["RcvbufErrors", "SndbufErrors"]) lost[name] = Number(counts[names.indexOf(name)]);
    return lost;
  }

  // All counts of media and sockets that are not 0, in words.
  async counted() {
    const page = await fetch(this.metricsUrl).then((answer) => answer.text());
    return [...page.matchAll(/^parlor_(?:media|socket)_total\{.*kind="(\w+)"\} ([1-9]\d*)$/gm)].map(([, kind, count]) => `${kind} ${count}`).join(", ");
  }

  // Datagrams that came to one media thread and were for another, and those that were lost so.
  async handovers() {
    const page = await fetch(this.metricsUrl).then((answer) => answer.text());
    const sum = (name) => [...page.matchAll(new RegExp(`^${name}\\{.*\\} (\\d+)$`, "gm"))].reduce((sum, [, count]) => sum + Number(count), 0);
    return { total: sum("parlor_handovers_total"), lost: sum("parlor_handovers_lost_total") };
  }

  exited() {
    return this.failure !== null || this.child.exitCode !== null || this.child.signalCode !== null;
  }

  log() {
    return `${this.failure ?? ""}${readFileSync(this.logPath, "utf8")}`;
  }

  // From here on its end is expected.
  signal(name) {
    this.ending = true;
    this.child.kill(name);
  }

  async ended(deadlineMs = STOP_DEADLINE_MS) {
    await until("the server ends", deadlineMs, async () => this.exited());
    return this.child.exitCode;
  }

  // Ends it; a server that had died before, that does not end by itself or that has panicked is
  // an error.
  async stop() {
    if (this.exited() && !this.ending) {
      throw new Error(`the server had ended: ${this.child.exitCode ?? this.child.signalCode ?? this.failure}`);
    }
    if (!this.ending) this.signal("SIGTERM");
    try {
      await this.ended();
    } catch (error) {
      this.child.kill("SIGKILL");
      throw error;
    }
    if (this.log().includes("panicked at")) throw new Error("the server panicked, see its log");
  }
}
