// What tests say about media, as conditions with generous deadlines.
import assert from "node:assert/strict";
import { until } from "./until.js";

const DEADLINE_MS = 30_000;
const TONE_TOLERANCE_HZ = 3;
// A jitter buffer may insert a block or two of silence; a gap that one hears is longer.
const LONGEST_GAP_MS = 60;
// While the encoder's first pictures are coarse, a cell may be unreadable.
const UNREADABLE_SHARE = 0.1;
const ATTEMPTS = 4;

// `who` sees `count` more pictures of `key` ("identity/track"), in order.
export async function seesPictures(who, key, count = 30, deadlineMs = DEADLINE_MS) {
  let start;
  const media = await until(`${who.identity} sees ${count} pictures of ${key}`, deadlineMs, async () => {
    const seen = (await who.call("media"))[key];
    if (!seen) return { waiting: "not subscribed" };
    start ??= seen.read;
    return seen.read >= start + count ? seen : { waiting: seen };
  });
  const text = `${who.identity} of ${key}: ${JSON.stringify(media)}`;
  assert.equal(media.backwards, 0, `pictures in order, ${text}`);
  assert.ok(media.last - media.first >= media.read - 1, `each picture once, ${text}`);
  assert.ok(media.unreadable <= 1 + media.frames * UNREADABLE_SHARE, `readable pictures, ${text}`);
  return media;
}

// `who` decodes `count` more frames of `key`, whatever they show.
export async function seesFrames(who, key, count = 30) {
  let start;
  return until(`${who.identity} sees ${count} frames of ${key}`, DEADLINE_MS, async () => {
    const seen = (await who.call("media"))[key];
    start ??= seen?.frames;
    return seen?.frames >= start + count ? seen : { waiting: seen ?? "not subscribed" };
  });
}

// `who` hears `key` at `hz`.
export async function hearsTone(who, key, hz) {
  return until(`${who.identity} hears ${key} at ${hz} Hz`, DEADLINE_MS, async () => {
    const heard = (await who.call("media"))[key];
    const right = heard && heard.heardMs >= 500 && Math.abs(heard.hz - hz) < TONE_TOLERANCE_HZ;
    return right ? heard : { waiting: heard ?? "not subscribed" };
  });
}

// From now on each of `tones` ([who, key, hz]) is heard for `ms` without a gap.
export async function hearWithoutGaps(tones, ms) {
  for (const [who, key, hz] of tones) await hearsTone(who, key, hz);
  for (const who of new Set(tones.map(([listener]) => listener))) await who.call("resetMedia");
  for (const [who, key, hz] of tones) {
    const heard = await until(`${who.identity} hears ${ms} ms of ${key}`, ms + DEADLINE_MS, async () => {
      const now = (await who.call("media"))[key];
      return now?.heardMs >= ms ? now : { waiting: now ?? "not subscribed" };
    });
    const text = `${who.identity} of ${key}: ${JSON.stringify(heard)}`;
    assert.ok(heard.longestGapMs <= LONGEST_GAP_MS, `no gap, ${text}`);
    assert.ok(Math.abs(heard.hz - hz) < TONE_TOLERANCE_HZ, `${hz} Hz, ${text}`);
  }
}

// `who` has seen an event that `matches` says yes to; gives it back.
export async function sawEvent(who, what, matches) {
  return until(`${who.identity}: ${what}`, DEADLINE_MS, async () => {
    const events = await who.call("events");
    return events.find(matches) ?? { waiting: events.slice(-5) };
  });
}

// Nobody has reconnected or been disconnected on the way.
export async function stayedConnected(...participants) {
  for (const who of participants) {
    const broken = (await who.call("events")).filter(({ event }) => /reconnect|^disconnected/i.test(event));
    assert.deepEqual(broken, [], `${who.identity} kept its first connection`);
  }
}

// The best of a few measurements in ms, as soon as one is within the limit: a machine that does
// something else for a moment is no reason to fail.
export async function bestOf(what, limitMs, measure) {
  const measured = [];
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    const ms = Math.round(await measure(attempt));
    if (ms <= limitMs) return ms;
    measured.push(ms);
  }
  assert.fail(`${what} took ${measured.join(", ")} ms, and may take ${limitMs} ms`);
}
