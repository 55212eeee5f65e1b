// What a subscriber receives follows what it asks for, of every codec, as simulcast and as SVC; of
// a single stream every quality is the same pictures, and asking costs nothing.
import assert from "node:assert/strict";
import { seesFrames, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const KEY = "alice/pictures";
// livekit-client's VideoQuality, and the width that each stands for where there are layers.
const QUALITIES = [[0, 320], [1, 640], [2, 1280], [1, 640]];
const LAYERED = { width: 1280, height: 720 };
// libwebrtc begins a single stream of 720p at 180p and takes its time.
const SINGLE = { width: 640, height: 360 };
// Twice for CI, ten times for the long run.
const ROUNDS = [2, 10];
// What is captured is encoded once for each layer, whatever is asked for.
const LAYERS = 3;
// Both ends are not asked in the same moment.
const ON_THEIR_WAY = 3;
// A switch waits for a round trip and a keyframe.
const SWITCH_MS = 10_000;

const PUBLICATIONS = [
  { videoCodec: "vp8", single: true },
  { videoCodec: "h264", single: true },
  { videoCodec: "vp9", scalabilityMode: "L1T3", single: true },
  { videoCodec: "av1", scalabilityMode: "L1T3", single: true },
  { videoCodec: "vp8", simulcast: true },
  { videoCodec: "h264", simulcast: true },
  { videoCodec: "vp9", scalabilityMode: "L3T3_KEY" },
  { videoCodec: "vp9", scalabilityMode: "L3T3" },
  { videoCodec: "av1", scalabilityMode: "L3T3_KEY" },
  { videoCodec: "vp9", simulcast: true, scalabilityMode: "L1T3", serverVersion: "1.14.0" },
  { videoCodec: "av1", simulcast: true, scalabilityMode: "L1T3", serverVersion: "1.14.0" },
];

const sum = (encodings, of) => encodings.reduce((total, encoding) => total + (encoding[of] ?? 0), 0);

async function receives(who, width) {
  const { frames } = (await who.call("media"))[KEY];
  return until(`${who.identity} receives ${width} pixels`, SWITCH_MS, async () => {
    const seen = (await who.call("media"))[KEY];
    return seen.rtp.frameWidth === width && seen.frames > frames ? seen : { waiting: seen };
  });
}

for (const [{ single, ...publication }, rounds] of PUBLICATIONS.flatMap((publication) => ROUNDS.map((rounds) => [publication, rounds]))) {
  const mode = publication.scalabilityMode ?? "";
  const form = single ? "single " : publication.simulcast ? "simulcast " : "";
  const name = `m-${publication.videoCodec} ${form}${mode}`.trim();
  const size = single ? SINGLE : LAYERED;
  const full = rounds > ROUNDS[0];
  test(`${name} follows the asked quality, ${rounds} rounds`, { full, deadlineMs: 240_000 }, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice");
    const bob = await t.joinPage(server, "bob");
    await alice.call("publishPictures", { ...size, fps: 15, backupCodec: false, ...publication });
    await seesFrames(bob, KEY, 10);
    await receives(bob, size.width);
    const before = (await bob.call("media"))[KEY];
    const sentBefore = await alice.call("sending", { name: "pictures" });
    const plisBefore = sum(sentBefore, "pliCount");
    const times = [];
    for (let round = 0; round < rounds; round += 1) {
      for (const [quality, width] of QUALITIES) {
        const started = performance.now();
        await bob.call("setVideoQuality", { identity: "alice", name: "pictures", quality });
        await receives(bob, single ? size.width : width);
        times.push(performance.now() - started);
      }
    }
    await seesFrames(bob, KEY, 10);
    const after = (await bob.call("media"))[KEY];
    const sentAfter = await alice.call("sending", { name: "pictures" });
    const plis = sum(sentAfter, "pliCount") - plisBefore;
    const encoded = (sum(sentAfter, "framesEncoded") - sum(sentBefore, "framesEncoded")) / (single ? 1 : LAYERS);
    const decoded = after.rtp.framesDecoded - before.rtp.framesDecoded;
    const switches = rounds * QUALITIES.length;
    times.sort((one, other) => one - other);
    t.note(`${after.rtp.codec}: ${switches} switches, median ${Math.round(times[times.length >> 1])} ms, longest ${Math.round(times.at(-1))} ms, ${plis} PLIs, longest gap ${Math.round(after.longestGapMs)} ms, ${Math.round(encoded)} pictures encoded, ${decoded} decoded`);
    // Not whether it froze: on a busy machine the encoder itself is late by more than that.
    assert.ok(decoded >= encoded - ON_THEIR_WAY, `${decoded} of ${encoded} pictures`);
    assert.equal(after.backwards, 0, "pictures in order");
    assert.equal(after.rtp.pliCount, before.rtp.pliCount, "the decoder never asked for a keyframe");
    // One for each on a quiet machine. A busy encoder may need to be asked again.
    assert.ok(plis <= (single ? rounds : 2 * switches), `${plis} PLIs for ${switches} switches`);
    await stayedConnected(alice, bob);
  });
}
