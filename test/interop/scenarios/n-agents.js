// Workers of the official livekit-agents framework: jobs by themselves, by API and by token, shared
// between workers, and offered again when their worker dies.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AccessToken, AgentDispatchClient, RoomAgentDispatch, RoomConfiguration } from "livekit-server-sdk";
import { API_KEY, API_SECRET } from "../harness/server.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const SCRIPT = fileURLToPath(new URL("../agents/agent.py", import.meta.url));
// `ParticipantInfo.Kind`.
const AGENT = 4;
// A job's process imports the whole framework first, on a machine that may be busy.
const AGENT_DEADLINE_MS = 60_000;
const RESCUE_DEADLINE_MS = 90_000;

class Worker {
  constructor(t, server, label, args) {
    const log = openSync(join(t.folder, `${label}.log`), "a");
    const command = [SCRIPT, "--url", server.url, "--label", label, ...args];
    this.child = spawn(t.options.agentsPython, command, { stdio: ["ignore", log, log], detached: true });
    closeSync(log);
    this.ended = new Promise((resolve) => this.child.once("exit", resolve));
  }

  // Without the processes of its jobs, which have to find out themselves.
  kill() {
    this.child.kill("SIGKILL");
    return this.ended;
  }

  async stop() {
    try {
      process.kill(-this.child.pid, "SIGKILL");
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
    await this.ended;
  }
}

async function worker(t, server, label, ...args) {
  const started = new Worker(t, server, label, args);
  t.open.push(started);
  const before = registered(server);
  await until(`the worker ${label} registers`, AGENT_DEADLINE_MS, async () => registered(server) > before);
  return started;
}

const registered = (server) => server.log().split("worker registered").length - 1;

// The agents in a room that have said whose they are, once there are as many.
function agents(t, server, room, count, deadlineMs = AGENT_DEADLINE_MS) {
  return until(`${count} agents are in ${room}`, deadlineMs, async () => {
    const all = await t.api(server).listParticipants(room);
    const found = all.filter(({ kind, attributes }) => kind === AGENT && attributes.label);
    return found.length === count ? found : { waiting: all.map(({ identity }) => identity) };
  });
}

const dispatches = (server) => new AgentDispatchClient(server.httpUrl, API_KEY, API_SECRET);

test("unnamed agents come by themselves, named ones by API and by token", async (t) => {
  const server = await t.server();
  await worker(t, server, "auto");
  await worker(t, server, "helper", "--name", "helper", "--threads");
  await t.api(server).createRoom({ name: "one", emptyTimeout: 300 });
  const [agent] = await agents(t, server, "one", 1);
  assert.equal(agent.attributes.label, "auto");
  assert.equal(agent.attributes["lk.agent_name"], "");

  const made = await dispatches(server).createDispatch("one", "helper", { metadata: "by API" });
  const both = await agents(t, server, "one", 2);
  const helper = both.find(({ attributes }) => attributes.label === "helper");
  assert.equal(helper.attributes.metadata, "by API");
  assert.equal(helper.attributes["lk.agent_name"], "helper");
  const listed = await dispatches(server).getDispatch(made.id, "one");
  assert.equal(listed.state.jobs[0].state.participantIdentity, helper.identity);
  await dispatches(server).deleteDispatch(made.id, "one");
  await agents(t, server, "one", 1);

  const token = new AccessToken(API_KEY, API_SECRET, { identity: "bob" });
  token.addGrant({ room: "two", roomJoin: true });
  token.roomConfig = new RoomConfiguration({ agents: [new RoomAgentDispatch({ agentName: "helper", metadata: "by token" })] });
  const bob = t.python("bob");
  await bob.call("connect", { url: server.url, token: await token.toJwt(), options: {} });
  const [called] = await agents(t, server, "two", 1);
  assert.equal(called.attributes.metadata, "by token");
});

test("two workers share twenty jobs, and one inherits those of the other", { deadlineMs: 300_000 }, async (t) => {
  const server = await t.server();
  const args = ["--name", "helper"];
  const first = await worker(t, server, "first", ...args);
  await worker(t, server, "second", ...args);
  await t.api(server).createRoom({ name: "shared", emptyTimeout: 600 });
  for (let job = 0; job < 20; job += 1) await dispatches(server).createDispatch("shared", "helper");
  const all = await agents(t, server, "shared", 20);
  const had = (label) => all.filter(({ attributes }) => attributes.label === label).length;
  t.note(`first has ${had("first")} jobs, second ${had("second")}`);
  assert.ok(Math.min(had("first"), had("second")) >= 6, `${had("first")} and ${had("second")}`);

  const killed = performance.now();
  await first.kill();
  await until("the second worker has all twenty", RESCUE_DEADLINE_MS, async () => {
    const now = await t.api(server).listParticipants("shared");
    const seconds = now.filter(({ attributes }) => attributes.label === "second").length;
    return now.length === 20 && seconds === 20 ? true : { waiting: `${seconds} of ${now.length}` };
  });
  t.note(`all twenty were back ${((performance.now() - killed) / 1000).toFixed(1)} s after the kill`);
  const jobs = (await dispatches(server).listDispatch("shared")).flatMap(({ state }) => state.jobs);
  assert.equal(jobs.length, 20);
});
