// End-to-end encryption with livekit-client's worker: the server sees neither pictures nor words.
import assert from "node:assert/strict";
import { hearsTone, seesFrames, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const KEY = "alice/pictures";
const DEADLINE_MS = 20_000;

// The worker of livekit-client 2.23 refuses to encrypt AV1.
const PUBLICATIONS = [
  { videoCodec: "vp8" },
  { videoCodec: "vp8", simulcast: true },
  { videoCodec: "h264" },
  { videoCodec: "h264", simulcast: true },
  { videoCodec: "vp9" },
  { videoCodec: "vp9", simulcast: true, scalabilityMode: "L1T3", serverVersion: "1.14.0" },
];

async function receives(who, width) {
  return until(`${who.identity} receives ${width} pixels`, DEADLINE_MS, async () => {
    const seen = (await who.call("media"))[KEY];
    return seen?.rtp.frameWidth === width && seen.rtp.framesPerSecond > 0 ? seen : { waiting: seen };
  });
}

async function noErrors(...participants) {
  for (const who of participants) {
    const errors = (await who.call("events")).filter(({ event }) => event === "encryptionError");
    assert.deepEqual(errors, [], `${who.identity} could read everything`);
  }
}

for (const publication of PUBLICATIONS) {
  const name = `${publication.videoCodec}${publication.simulcast ? " simulcast" : ""}`;
  test(`e-encryption of ${name}`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice", { password: "secret" });
    const bob = await t.joinPage(server, "bob", { password: "secret" });
    // Whoever has another key gets the same packets and no picture.
    const eve = await t.joinPage(server, "eve", { password: "guess" });
    await alice.call("publishPictures", { width: 1280, height: 720, backupCodec: false, ...publication });
    await seesFrames(bob, KEY, 20);
    const seen = (await bob.call("media"))[KEY];
    assert.ok(seen.read > seen.frames / 2 && seen.backwards === 0, `bob reads the pictures, ${JSON.stringify(seen)}`);
    if (publication.simulcast) {
      for (const [quality, width] of [[0, 320], [2, 1280], [1, 640]]) {
        await bob.call("setVideoQuality", { identity: "alice", name: "pictures", quality });
        await receives(bob, width);
      }
      await seesFrames(bob, KEY, 10);
    }
    const { participants } = await bob.call("state");
    const [track] = participants.find(({ identity }) => identity === "alice").tracks;
    assert.equal(track.encrypted, true, "bob is told that the track is encrypted");
    const watched = await until("eve is sent the track", DEADLINE_MS, async () => {
      const received = (await eve.call("media"))[KEY];
      return received?.rtp.packetsReceived > 20 ? received : { waiting: received };
    });
    assert.equal(watched.read, 0, "and sees nothing of it");
    await noErrors(alice, bob);
    await stayedConnected(alice, bob, eve);
  });
}

test("e-encryption of sound and data, mute and back", async (t) => {
  const server = await t.server();
  const alice = await t.joinPage(server, "alice", { password: "secret" });
  const bob = await t.joinPage(server, "bob", { password: "secret" });
  await alice.call("publishTone", { hz: 440 });
  await hearsTone(bob, "alice/tone", 440);
  await alice.call("mute", { name: "tone", muted: true });
  await new Promise((done) => setTimeout(done, 1500));
  await alice.call("mute", { name: "tone", muted: false });
  await bob.call("resetMedia");
  await hearsTone(bob, "alice/tone", 440);
  await bob.call("keepRaw");
  await alice.call("publishData", { text: "hello", topic: "greeting" });
  const message = await until("bob reads the message", DEADLINE_MS, async () => {
    const [first] = (await bob.call("received")).data;
    return first ?? { waiting: "nothing" };
  });
  assert.equal(message.text, "hello");
  const { raw } = await bob.call("received");
  assert.ok(raw.length > 0, "it came as a packet");
  const readable = raw.filter((base64) => Buffer.from(base64, "base64").includes("hello"));
  assert.deepEqual(readable, [], "which says nothing to who has no key");
  await noErrors(alice, bob);
  await stayedConnected(alice, bob);
});
