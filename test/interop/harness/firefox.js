// Firefox and its pages, over WebDriver BiDi. Each participant is a tab with storage of its own.
import { spawn } from "node:child_process";
import { appendFileSync, closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import WebSocket from "ws";
import { serveFiles } from "./browser.js";
import { until } from "./until.js";

const START_DEADLINE_MS = 60_000;
const PREFERENCES = {
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  "media.peerconnection.ice.loopback": true,
  "media.peerconnection.ice.obfuscate_host_addresses": false,
  "media.autoplay.default": 0,
  "media.autoplay.blocking_policy": 0,
  // The open H264 codec would be downloaded.
  "media.gmp-manager.updateEnabled": false,
  "app.update.auto": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "remote.active-protocols": 1,
};

export class Firefox {
  static async start(executablePath, folder) {
    const profile = mkdtempSync(join(tmpdir(), "parlor-firefox-"));
    const preference = ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`;
    writeFileSync(join(profile, "user.js"), Object.entries(PREFERENCES).map(preference).join(""));
    const log = openSync(join(folder, "firefox.log"), "a");
    const args = ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"];
    const child = spawn(executablePath, args, { stdio: ["ignore", log, "pipe"] });
    closeSync(log);
    let said = "";
    child.stderr.on("data", (chunk) => (said += chunk));
    const firefox = new Firefox(child, profile);
    const address = await until("Firefox listens for WebDriver BiDi", START_DEADLINE_MS, () => {
      if (child.exitCode !== null) throw new Error(`Firefox ended: ${said}`);
      return /WebDriver BiDi listening on (ws:\S+)/.exec(said)?.[1] ?? { waiting: said.slice(-300) };
    });
    await firefox.#open(`${address}/session`);
    return firefox;
  }

  constructor(child, profile) {
    this.child = child;
    this.profile = profile;
    this.waiting = new Map();
    this.logs = new Map();
    this.next = 1;
  }

  async #open(url) {
    this.socket = new WebSocket(url);
    this.socket.on("message", (text) => this.#take(JSON.parse(text)));
    await new Promise((opened, failed) => this.socket.once("open", opened).once("error", failed));
    await this.send("session.new", { capabilities: { alwaysMatch: {} } });
    await this.send("session.subscribe", { events: ["log.entryAdded"] });
    const { files, origin } = await serveFiles();
    Object.assign(this, { files, origin });
  }

  #take(message) {
    if (message.method === "log.entryAdded") {
      const log = this.logs.get(message.params.source?.context);
      if (log) appendFileSync(log, `${message.params.level}: ${message.params.text}\n`);
    }
    const call = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (message.type === "success") call?.resolve(message.result);
    else call?.reject(new Error(`${message.error}: ${message.message}`));
  }

  send(method, params) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ id, method, params }));
    });
  }

  async page(logPath) {
    const { userContext } = await this.send("browser.createUserContext", {});
    const { context } = await this.send("browsingContext.create", { type: "tab", userContext });
    this.logs.set(context, logPath);
    await this.send("browsingContext.navigate", { context, url: `${this.origin}/`, wait: "complete" });
    const page = new FirefoxPage(this, context, userContext);
    await until("the page is ready", START_DEADLINE_MS, () => page.evaluate("globalThis.participant !== undefined"));
    return page;
  }

  async stop() {
    const exit = new Promise((resolve) => this.child.once("exit", resolve));
    if (this.child.exitCode === null) {
      this.child.kill("SIGTERM");
      const timer = setTimeout(() => this.child.kill("SIGKILL"), 10_000);
      await exit;
      clearTimeout(timer);
    }
    this.socket?.terminate();
    this.files?.close();
    rmSync(this.profile, { recursive: true, force: true });
  }
}

// A participant in Firefox: `call` runs a method of page/participant.js.
class FirefoxPage {
  constructor(firefox, context, userContext) {
    Object.assign(this, { firefox, context, userContext });
  }

  // What comes out is passed as JSON: BiDi's own values know more types than we need.
  async evaluate(expression) {
    const { result, exceptionDetails } = await this.firefox.send("script.evaluate", {
      expression: `(async () => JSON.stringify((await (${expression})) ?? null))()`,
      target: { context: this.context },
      awaitPromise: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return JSON.parse(result.value);
  }

  call(method, params = {}) {
    return this.evaluate(`globalThis.participant[${JSON.stringify(method)}](${JSON.stringify(params)})`);
  }

  async stop() {
    await this.firefox.send("browser.removeUserContext", { userContext: this.userContext });
  }
}
