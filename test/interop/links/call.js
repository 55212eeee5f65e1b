// A publisher and a subscriber in Chromium, and what the subscriber's statistics say.
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { FILES, FLAGS, Page, ROOT } from "../harness/browser.js";

const ORIGIN = "http://localhost:8000";
const SAMPLE_MS = 250;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The page is of this machine and the server is not: Chromium would ask a person about that.
const OFF = "--disable-features=WebRtcHideLocalIpsWithMdns,LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests";

export function startBrowser(executablePath, args = []) {
  return chromium.launch({ executablePath, args: [...FLAGS.filter((flag) => !flag.startsWith("--disable-features")), OFF, ...args] });
}

// An empty page, whose files come from here: nothing else reaches into its namespace.
export async function openPage(browser, note) {
  const context = await browser.newContext({ permissions: ["microphone", "camera"] });
  await context.route(`${ORIGIN}/**`, (route) => {
    const file = FILES[new URL(route.request().url()).pathname];
    if (!file) return route.fulfill({ status: 404 });
    return route.fulfill({ contentType: file[1], body: readFileSync(new URL(file[0], ROOT)) });
  });
  const page = await context.newPage();
  page.on("console", (message) => note(`${message.type()}: ${message.text()}`));
  await page.goto(`${ORIGIN}/`);
  await page.waitForFunction(() => globalThis.participant !== undefined);
  return new Page(page, context);
}

// What both ends say at one moment.
export async function snapshot(alice, bob) {
  const [sent, received] = await Promise.all([alice.call("statistics"), bob.call("statistics")]);
  const inbound = (kind) => received.filter((entry) => entry.type === "inbound-rtp" && entry.kind === kind);
  const [video] = inbound("video");
  const [audio] = inbound("audio");
  const pair = received.find((entry) => entry.type === "candidate-pair" && entry.nominated) ?? {};
  const layers = sent.filter((entry) => entry.type === "outbound-rtp" && entry.kind === "video");
  const streams = (await bob.call("events")).filter(({ event }) => event === "trackStreamState");
  return { atMs: performance.now(), video: video ?? {}, audio: audio ?? {}, pair, layers, streams };
}

const share = (part, whole) => (whole > 0 ? part / whole : 0);

// What a subscriber got between two snapshots, as a reader of the issue would measure it.
function difference(before, after, samples) {
  const seconds = (after.atMs - before.atMs) / 1000;
  const grown = (kind, field) => (after[kind][field] ?? 0) - (before[kind][field] ?? 0);
  const lost = Math.max(0, grown("video", "packetsLost"));
  const answers = grown("pair", "responsesReceived");
  const heights = samples.map((sample) => sample.video.frameHeight).filter(Boolean);
  const sentOf = (height) => {
    const of = (snap) => snap.layers.find((layer) => layer.frameHeight === height)?.framesSent ?? 0;
    return of(after) - of(before);
  };
  const height = after.video.frameHeight ?? 0;
  const isSteady = heights.every((other) => other === height);
  const decoded = grown("video", "framesDecoded");
  const top = after.layers.reduce((best, layer) => ((layer.frameHeight ?? 0) > (best.frameHeight ?? 0) ? layer : best), {});
  return {
    seconds: Number(seconds.toFixed(1)),
    heights: [...new Set(heights)],
    height,
    fps: Number((decoded / seconds).toFixed(1)),
    frameShare: isSteady && sentOf(height) > 0 ? Number((decoded / sentOf(height)).toFixed(3)) : null,
    kbps: Math.round((8 * grown("video", "bytesReceived")) / seconds / 1000),
    audioKbps: Math.round((8 * grown("audio", "bytesReceived")) / seconds / 1000),
    lossPercent: Number((100 * share(lost, lost + grown("video", "packetsReceived"))).toFixed(2)),
    freezes: grown("video", "freezeCount"),
    frozenS: Number(grown("video", "totalFreezesDuration").toFixed(2)),
    concealedPercent: Number((100 * share(grown("audio", "concealedSamples"), grown("audio", "totalSamplesReceived"))).toFixed(2)),
    roundTripMs: answers > 0 ? Math.round((1000 * grown("pair", "totalRoundTripTime")) / answers) : null,
    stream: after.streams.at(-1)?.state ?? "active",
    switches: heights.filter((other, at) => at > 0 && other !== heights[at - 1]).length,
    sent: { height: top.frameHeight, fps: Number((sentOf(top.frameHeight) / seconds).toFixed(1)), limit: top.qualityLimitationReason },
  };
}

// Watches for a while.
export async function watch(alice, bob, seconds, trace = () => {}) {
  const before = await snapshot(alice, bob);
  const samples = [];
  let last = before;
  while (last.atMs - before.atMs < seconds * 1000) {
    await pause(SAMPLE_MS);
    last = await snapshot(alice, bob);
    samples.push(last);
    trace(last);
  }
  return difference(before, last, samples);
}

// How long until `condition` holds between two snapshots that follow each other, in seconds; null
// when it takes longer than `limitS`.
export async function secondsUntil(alice, bob, limitS, condition) {
  const first = await snapshot(alice, bob);
  let before = first;
  while (before.atMs - first.atMs < limitS * 1000) {
    await pause(SAMPLE_MS / 2);
    const after = await snapshot(alice, bob);
    if (condition(before, after)) return Number(((after.atMs - first.atMs) / 1000).toFixed(1));
    before = after;
  }
  return null;
}
