// What a subscriber says of a track with UpdateTrackSettings, but for its quality.
import assert from "node:assert/strict";
import { hearsTone, seesFrames, seesPictures, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const KEY = "alice/pictures";
const DEADLINE_MS = 20_000;
// Jitter buffers play on for a moment.
const SETTLE_MS = 1000;
const WATCHED_MS = 1500;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const media = async (who) => (await who.call("media"))[KEY];

// Frames a second that `who` decodes, over a while.
async function rate(who) {
  const [before, start] = [(await media(who)).rtp.framesDecoded, performance.now()];
  await pause(WATCHED_MS);
  return (((await media(who)).rtp.framesDecoded - before) * 1000) / (performance.now() - start);
}

async function decodes(who, low, high) {
  return until(`${who.identity} decodes ${low} to ${high} frames a second`, DEADLINE_MS, async () => {
    const now = await rate(who);
    return now >= low && now <= high ? now : { waiting: now };
  });
}

for (const [codec, options] of [["vp8", { simulcast: true }], ["vp9", { scalabilityMode: "L3T3_KEY" }]]) {
  test(`m-settings of ${codec}: frame rate, off and on`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice");
    const bob = await t.joinPage(server, "bob");
    await alice.call("publishPictures", { width: 640, height: 360, fps: 20, backupCodec: false, videoCodec: codec, ...options });
    await seesFrames(bob, KEY, 20);
    const full = await decodes(bob, 12, 25);
    t.note(JSON.stringify(await alice.call("sending", { name: "pictures" })));
    await bob.call("setVideo", { identity: "alice", name: "pictures", fps: 5 });
    const fewer = await decodes(bob, 2, full * 0.7);
    await bob.call("setVideo", { identity: "alice", name: "pictures", fps: 30 });
    const again = await decodes(bob, full * 0.8, 25);
    t.note(`${full.toFixed(1)}, ${fewer.toFixed(1)}, ${again.toFixed(1)} frames a second`);

    await bob.call("setVideo", { identity: "alice", name: "pictures", enabled: false });
    await pause(SETTLE_MS);
    assert.equal(await rate(bob), 0, "nothing comes of a disabled track");
    await bob.call("setVideo", { identity: "alice", name: "pictures", enabled: true });
    await seesFrames(bob, KEY, 20);
    assert.equal((await media(bob)).backwards, 0, "pictures in order");
    await stayedConnected(alice, bob);
  });
}

test("a simulated bandwidth pauses video that does not fit, and its end brings it back", async (t) => {
  const server = await t.server();
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPage(server, "bob");
  await alice.call("publishTone", { hz: 440 });
  await alice.call("publishPictures", {});
  await seesPictures(bob, "alice/pictures");
  const states = async () =>
    (await bob.call("events")).filter(({ event }) => event === "trackStreamState").map(({ state }) => state);
  await bob.call("simulate", { scenario: "subscriber-bandwidth", value: 50_000 });
  await until("the video is paused", 20_000, async () => (await states()).at(-1) === "paused");
  await hearsTone(bob, "alice/tone", 440);
  await bob.call("simulate", { scenario: "subscriber-bandwidth", value: 0 });
  await until("the video goes on", 20_000, async () => (await states()).at(-1) === "active");
  await seesPictures(bob, "alice/pictures");
});
