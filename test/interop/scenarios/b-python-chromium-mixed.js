// Both SDKs and both connection models in one room.
import assert from "node:assert/strict";
import { hearWithoutGaps, hearsTone, seesPictures, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";

const SMALL = { width: 320, height: 180, fps: 10 };
const PICTURES_OF_A_MINUTE = 590;
const FREEZE_MS = 1000;

// How a participant of each kind joins.
const KINDS = {
  "python-default": (t, server, identity) => t.joinPython(server, identity),
  "python-single": (t, server, identity) => t.joinPython(server, identity, { singlePeerConnection: true }),
  "python-dual": (t, server, identity) => t.joinPython(server, identity, { singlePeerConnection: false }),
  "chromium-single": (t, server, identity) => t.joinPage(server, identity, { singlePeerConnection: true }),
  "chromium-dual": (t, server, identity) => t.joinPage(server, identity, { singlePeerConnection: false }),
};

async function everybodyMeetsEverybody(t, server, kinds, toneMs) {
  const everybody = [];
  for (const kind of kinds) {
    const who = await KINDS[kind](t, server, kind);
    who.hz = 440 + 110 * everybody.length;
    everybody.push(who);
  }
  // One after the other, so that later ones also meet tracks that are already there.
  for (const who of everybody) {
    await who.call("publishTone", { hz: who.hz });
    await who.call("publishPictures", SMALL);
  }
  const pairs = everybody.flatMap((who) => everybody.filter((other) => other !== who).map((other) => [who, other]));
  for (const [who, other] of pairs) {
    const video = await seesPictures(who, `${other.identity}/pictures`, 20);
    t.note(`${who.identity} sees ${other.identity}: first frame ${Math.round(video.firstFrameMs)} ms after subscribing`);
  }
  await hearWithoutGaps(pairs.map(([who, other]) => [who, `${other.identity}/tone`, other.hz]), toneMs);
  await stayedConnected(...everybody);
  return pairs;
}

for (const kind of ["python-default", "python-single", "python-dual"]) {
  test(`two participants, ${kind} and chromium-single, hear and see each other`, async (t) =>
    everybodyMeetsEverybody(t, await t.server(), [kind, "chromium-single"], 3000));
}

test("two participants, chromium-dual and chromium-single, hear and see each other", async (t) =>
  everybodyMeetsEverybody(t, await t.server(), ["chromium-dual", "chromium-single"], 3000));

test("everybody in one room hears and sees everybody, without gaps", async (t) =>
  everybodyMeetsEverybody(t, await t.server(), ["python-default", "python-dual", "chromium-dual", "chromium-single"], 5000));

test("a simulcast publication of the Python SDK is seen", async (t) => {
  const server = await t.server();
  const alice = await t.joinPython(server, "alice");
  const bob = await t.joinPage(server, "bob");
  await alice.call("publishTone", { hz: 440 });
  await alice.call("publishPictures", { simulcast: true });
  await seesPictures(bob, "alice/pictures", 30);
  await hearsTone(bob, "alice/tone", 440);
});

test("five participants for a minute, without a freeze", { full: true, deadlineMs: 240_000 }, async (t) => {
  const server = await t.server();
  const kinds = ["python-default", "python-single", "python-dual", "chromium-dual", "chromium-single"];
  const pairs = await everybodyMeetsEverybody(t, server, kinds, 1000);
  for (const who of new Set(pairs.map(([each]) => each))) await who.call("resetMedia");
  const [started, cpu] = [performance.now(), server.cpuSeconds()];
  const videos = pairs.map(async ([who, other]) => {
    const video = await seesPictures(who, `${other.identity}/pictures`, PICTURES_OF_A_MINUTE, 120_000);
    assert.ok(video.longestGapMs < FREEZE_MS, `${who.identity} of ${other.identity}: ${JSON.stringify(video)}`);
  });
  await Promise.all(videos);
  const seconds = (performance.now() - started) / 1000;
  t.note(`server: ${((100 * (server.cpuSeconds() - cpu)) / seconds).toFixed(1)} % of a core`);
});
