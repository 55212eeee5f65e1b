// Both SDKs and both connection models in one room.
import { hearWithoutGaps, hearsTone, seesPictures, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";

const SMALL = { width: 320, height: 180, fps: 10 };

// How a participant of each kind joins.
const KINDS = {
  "python-default": (t, server, identity) => t.joinPython(server, identity),
  "python-single": (t, server, identity) => t.joinPython(server, identity, { singlePeerConnection: true }),
  "python-dual": (t, server, identity) => t.joinPython(server, identity, { singlePeerConnection: false }),
  "chromium-single": (t, server, identity) => t.joinPage(server, identity, { singlePeerConnection: true }),
  "chromium-dual": (t, server, identity) => t.joinPage(server, identity, { singlePeerConnection: false }),
};

async function everybodyMeetsEverybody(t, kinds, toneMs) {
  const server = await t.server();
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
}

for (const kind of ["python-default", "python-single", "python-dual"]) {
  test(`two participants, ${kind} and chromium-single, hear and see each other`, (t) =>
    everybodyMeetsEverybody(t, [kind, "chromium-single"], 3000));
}

test("two participants, chromium-dual and chromium-single, hear and see each other", (t) =>
  everybodyMeetsEverybody(t, ["chromium-dual", "chromium-single"], 3000));

test("everybody in one room hears and sees everybody, without gaps", (t) =>
  everybodyMeetsEverybody(t, ["python-default", "python-dual", "chromium-dual", "chromium-single"], 5000));

test("a simulcast publication of the Python SDK is seen", async (t) => {
  const server = await t.server();
  const alice = await t.joinPython(server, "alice");
  const bob = await t.joinPage(server, "bob");
  await alice.call("publishTone", { hz: 440 });
  await alice.call("publishPictures", { simulcast: true });
  await seesPictures(bob, "alice/pictures", 30);
  await hearsTone(bob, "alice/tone", 440);
});
