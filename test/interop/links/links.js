// Calls over bad links by real Chromium: node links.js [SCENARIO] [--runs 5] [--json FILE]
//
// Against Parlor, or with --server-command against another server that this starts, or with --url
// against one that runs already. Root is needed, for network namespaces. See docs/congestion.md.
//
// With --link "delay_ms=300 jitter_ms=10 ..." all media goes through the simulator's own link, in both
// directions (test/netem, parlor-link); the scenario `asis` does nothing else to it.
import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, closeSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { AccessToken } from "livekit-server-sdk";
import { API_KEY, API_SECRET } from "../harness/server.js";
import { until } from "../harness/until.js";
import { openPage, startBrowser } from "./call.js";
import { makeCamera } from "./camera.js";
import { Net, RELAY_IP, SERVER_IP } from "./net.js";
import { scenarios } from "./scenarios.js";

const here = fileURLToPath(new URL(".", import.meta.url));
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: "string", default: join(here, "../../../target/debug/parlor") },
    "server-command": { type: "string" },
    url: { type: "string" },
    link: { type: "string" },
    relay: { type: "string", default: join(here, "../../../target/debug/parlor-link") },
    key: { type: "string", default: API_KEY },
    secret: { type: "string", default: API_SECRET },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    runs: { type: "string", default: "5" },
    json: { type: "string" },
    // What else runs on the machine must not starve the encoder: that would measure the machine.
    nice: { type: "string", default: "-10" },
    dual: { type: "boolean", default: false },
    trace: { type: "boolean", default: false },
  },
});
const PORT = 7880;
const folder = join(here, ".cache");
mkdirSync(folder, { recursive: true });

const net = new Net({ isHosted: options.url !== undefined });
const open = [];
async function end(code) {
  for (const close of open.reverse()) await Promise.resolve(close()).catch(() => {});
  net.close();
  process.exit(code);
}
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => end(1));

async function startServer() {
  if (options.url) return options.url;
  const command = options["server-command"]?.replaceAll("{ip}", SERVER_IP).split(" ") ?? [
    options.server, "serve", "--port", String(PORT), "--udp-port", "7882", "--node-ip", options.link ? RELAY_IP : SERVER_IP,
    "--keys", `${options.key}: ${options.secret}`,
    // A server that asks clients itself would find a way around the relay.
    ...(options.link ? ["--rtc.use_ice_lite", "true"] : []),
  ];
  const [program, ...args] = [...net.inside(net.server), "nice", "-n", options.nice, ...command];
  const log = openSync(join(folder, "server.log"), "w");
  const env = { ...process.env };
  const child = spawn(program, args, { stdio: ["ignore", log, log], env });
  closeSync(log);
  open.push(() => child.kill("SIGKILL"));
  const [check, ...rest] = [...net.inside(net.server), "bash", "-c", `: </dev/tcp/${SERVER_IP}/${PORT}`];
  await until("the server listens", 20_000, async () => {
    if (child.exitCode !== null) throw new Error(`the server ended, see ${folder}/server.log`);
    try {
      return execFileSync(check, rest, { stdio: "ignore" }) !== undefined;
    } catch {
      return false;
    }
  });
  return `ws://${SERVER_IP}:${PORT}`;
}

// What Parlor itself says about the way to a participant: a sentence, and with `all` its decisions.
async function explain(room, identity, all = false) {
  const admin = new AccessToken(options.key, options.secret, { ttl: "1h" });
  admin.addGrant({ roomList: true, roomAdmin: true });
  const address = `${url.replace("ws", "http")}/debug/rooms`;
  const call = ["curl", "-s", "--max-time", "2", "-H", `Authorization: Bearer ${await admin.toJwt()}`, address];
  const [program, ...args] = [...net.inside(net.server), ...call];
  const text = await new Promise((resolve) => execFile(program, args, (error, stdout) => resolve(error ? "[]" : stdout)));
  try {
    const link = JSON.parse(text).find((known) => known.Name === room)?.Participants[identity]?.links[0];
    if (!link) return "";
    const decisions = link.decisions.map((one) => `\n    ${one.secondsAgo.toFixed(2)} s ago: ${one.why} (${one.link})`);
    return `${link.estimate}; ${Object.values(link.tracks).join("; ")}${all ? decisions.join("") : ""}`;
  } catch {
    return "";
  }
}

async function token(identity, room) {
  const grant = new AccessToken(options.key, options.secret, { identity, ttl: "1h" });
  grant.addGrant({ room, roomJoin: true });
  return grant.toJwt();
}

// The simulator's link before each port that the server may take.
async function startRelays() {
  net.addRelay();
  for (const port of [PORT + 2, PORT + 3]) {
    const [program, ...args] = [...net.inside(net.client), "nice", "-n", options.nice, options.relay, `${RELAY_IP}:${port}`, `${SERVER_IP}:${port}`, ...options.link.split(" ")];
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    open.push(() => child.stdin.end());
    await once(child.stdout, "data");
  }
}

if (options.link) await startRelays();
const url = await startServer();
const camera = makeCamera(join(folder, "camera.y4m"));
const browsers = {};
async function browser(name, space, args) {
  if (browsers[name]?.isConnected()) return browsers[name];
  const wrapper = net.wrapper(folder, `chromium-${name}.sh`, space, options.chromium, options.nice);
  browsers[name] = await startBrowser(wrapper, args);
  const mine = browsers[name];
  open.push(() => mine.close());
  return mine;
}

// One run of a scenario: a room of its own, a publisher that has come to all its layers, and a
// subscriber that joins over the link as it is.
async function oneRun(name, run) {
  const room = `links-${name}-${run}-${process.pid}`;
  const pages = [];
  net.rate(null);
  net.loss(0);
  const join_ = async (identity, at) => {
    const file = join(folder, `${room}-${identity}.log`);
    const page = await openPage(at, (text) => appendFileSync(file, `${text}\n`));
    pages.push(page);
    const params = { url, token: await token(identity, room), options: { singlePeerConnection: !options.dual }, plain: true };
    await page.call("connect", params);
    return page;
  };
  const started = performance.now();
  const t = {
    net,
    trace(snap) {
      if (!options.trace) return;
      const { video, pair, audio } = snap;
      explain(room, "bob").then((why) => why && console.log(`    ${((performance.now() - started) / 1000).toFixed(2)} s: ${why}`));
      console.log(`  ${((snap.atMs - started) / 1000).toFixed(2)} s: ${video.frameHeight}p ${video.framesPerSecond} fps, ${video.framesDecoded} frames, ${video.packetsLost} lost, ${video.freezeCount} freezes, rtt ${Math.round(1000 * pair.currentRoundTripTime)} ms, concealed ${audio.concealedSamples}, ${snap.streams.at(-1)?.state ?? "active"}`);
    },
    async call() {
      const alice = await join_("alice", await browser("publisher", net.server, [`--use-file-for-fake-video-capture=${camera}`]));
      await alice.call("publishTone", { hz: 440 });
      const published = performance.now();
      await alice.call("publishCamera", { capture: { resolution: { width: 1280, height: 720, frameRate: 30 } }, videoCodec: "vp8", simulcast: true, videoEncoding: { maxBitrate: 1_700_000, maxFramerate: 30 } });
      // A publisher begins small; what is measured is the way to the subscriber.
      const sends = (name, least) => until(`the publisher sends 720p, ${name}`, 30_000, async () => {
        const layers = (await alice.call("statistics")).filter((entry) => entry.type === "outbound-rtp" && entry.kind === "video");
        return layers.some((layer) => layer.frameHeight === 720 && layer[name] >= least) || { waiting: layers.map((layer) => layer.frameHeight) };
      });
      await sends("framesSent", 1);
      const ramp720S = Number(((performance.now() - published) / 1000).toFixed(1));
      await sends("framesPerSecond", 20);
      const bob = await join_("bob", await browser("subscriber", net.client, []));
      return { alice, bob, ramp720S };
    },
  };
  try {
    const rows = await scenarios[name].run(t);
    if (options.trace) console.log(await explain(room, "bob", true));
    return rows;
  } finally {
    for (const page of pages) await page.stop().catch(() => {});
  }
}

function describe(row) {
  const parts = [
    `${row.heights.join("/") || 0}p`, `${row.fps} fps`, row.frameShare === null ? "" : `${(100 * row.frameShare).toFixed(1)} % of frames`,
    `${row.kbps}+${row.audioKbps} kbit/s`, `lost ${row.lossPercent} %`, `${row.freezes} freezes ${row.frozenS} s`,
    `concealed ${row.concealedPercent} %`, `rtt ${row.roundTripMs} ms`, row.stream, `${row.switches} switches`,
  ];
  for (const field of ["ramp720S", "until720S", "untilVideoS"]) if (field in row) parts.push(`${field} ${row[field]}`);
  parts.push(`publisher ${row.sent.height}p ${row.sent.fps} fps (${row.sent.limit})`);
  return parts.filter(Boolean).join(", ");
}

const report = [];
let failed = 0;
try {
  for (const name of Object.keys(scenarios).filter((name) => !positionals[0] || positionals.includes(name))) {
    for (let run = 1; run <= Number(options.runs); run += 1) {
      const load = loadavg()[0];
      let rows;
      try {
        rows = await oneRun(name, run);
      } catch (error) {
        console.log(`${name}, run ${run}: ${error.stack}`);
        failed += 1;
        continue;
      }
      for (const [what, row] of rows) {
        const faults = (scenarios[name].need[what] ?? []).map((check) => check(row)).filter(Boolean);
        failed += faults.length > 0 ? 1 : 0;
        report.push({ scenario: name, run, what, faults, loadBefore: load, loadAfter: loadavg()[0], judged: what in scenarios[name].need, ...row });
        const mark = what in scenarios[name].need ? (faults.length > 0 ? "MISSED" : "ok    ") : "      ";
        console.log(`${mark} ${what}, run ${run}, load ${load.toFixed(1)} to ${loadavg()[0].toFixed(1)}: ${describe(row)}${faults.length ? ` <- ${faults.join("; ")}` : ""}`);
      }
    }
  }
  console.log("\nthe worst run of each:");
  for (const what of new Set(report.filter((row) => row.judged).map((row) => row.what))) {
    const rows = report.filter((row) => row.what === what);
    const worst = rows.reduce((bad, row) => (row.faults.length > bad.faults.length || (row.faults.length === bad.faults.length && row.frozenS > bad.frozenS) ? row : bad));
    console.log(`| ${what} | ${rows.filter((row) => row.faults.length === 0).length} of ${rows.length} | ${describe(worst)} |`);
  }
  if (options.json) writeFileSync(options.json, JSON.stringify({ date: new Date().toISOString(), url, runs: report }, null, 1));
  await end(failed > 0 ? 1 : 0);
} catch (error) {
  console.log(error.stack);
  await end(2);
}
