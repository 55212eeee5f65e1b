// Tracks that come, go silent and go, without one being stuck.
import assert from "node:assert/strict";
import { hearsTone, sawEvent, seesPictures, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const ROUNDS = 10;
const SMALL = { width: 320, height: 180, fps: 15 };

for (const single of [true, false]) {
  const model = single ? "the single connection" : "the pair of connections";

  test(`mute and unmute on ${model}`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice", { singlePeerConnection: single });
    const bob = await t.joinPage(server, "bob", { singlePeerConnection: single });
    await alice.call("publishTone", { hz: 440 });
    await alice.call("publishPictures", SMALL);
    await hearsTone(bob, "alice/tone", 440);
    await seesPictures(bob, "alice/pictures", 15);

    for (const name of ["tone", "pictures"]) await alice.call("mute", { name, muted: true });
    for (const name of ["tone", "pictures"]) {
      await sawEvent(bob, `${name} is muted`, ({ event, key }) => event === "trackMuted" && key === `alice/${name}`);
    }
    await until("the tone is silent", 15_000, async () => {
      const { level } = (await bob.call("media"))["alice/tone"];
      return level < 0.01 || { waiting: level };
    });

    for (const name of ["tone", "pictures"]) await alice.call("mute", { name, muted: false });
    for (const name of ["tone", "pictures"]) {
      await sawEvent(bob, `${name} is back`, ({ event, key }) => event === "trackUnmuted" && key === `alice/${name}`);
    }
    await bob.call("resetMedia");
    await hearsTone(bob, "alice/tone", 440);
    await seesPictures(bob, "alice/pictures", 15);
    await stayedConnected(alice, bob);
  });

  test(`ten rounds of publishing and unpublishing on ${model}`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice", { singlePeerConnection: single });
    const bob = await t.joinPage(server, "bob", { singlePeerConnection: single });
    for (let round = 1; round <= ROUNDS; round += 1) {
      const names = { tone: `tone-${round}`, pictures: `pictures-${round}` };
      await alice.call("publishTone", { name: names.tone, hz: 400 + 20 * round });
      await alice.call("publishPictures", { name: names.pictures, ...SMALL });
      await hearsTone(bob, `alice/${names.tone}`, 400 + 20 * round);
      await seesPictures(bob, `alice/${names.pictures}`, 10);
      await alice.call("unpublish", { name: names.tone });
      await alice.call("unpublish", { name: names.pictures });
      await until(`round ${round} is gone`, 15_000, async () => {
        const [{ tracks }] = (await bob.call("state")).participants;
        return tracks.length === 0 || { waiting: tracks };
      });
    }
    assert.deepEqual(await bob.call("media"), {});
    await stayedConnected(alice, bob);
  });

  test(`ten tracks at once, published and removed, on ${model}`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice", { singlePeerConnection: single });
    const bob = await t.joinPage(server, "bob", { singlePeerConnection: single });
    const names = [...Array(10).keys()].map((index) => `tone-${index}`);
    await Promise.all(names.map((name, index) => alice.call("publishTone", { name, hz: 300 + 40 * index })));
    for (const [index, name] of names.entries()) await hearsTone(bob, `alice/${name}`, 300 + 40 * index);
    await Promise.all(names.map((name) => alice.call("unpublish", { name })));
    await until("all are gone", 15_000, async () => {
      const [{ tracks }] = (await bob.call("state")).participants;
      return tracks.length === 0 || { waiting: tracks };
    });
    await stayedConnected(alice, bob);
  });
}
