// Who does not subscribe by itself chooses, and may change its mind.
import assert from "node:assert/strict";
import { hearsTone, sawEvent, seesPictures, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const SMALL = { width: 320, height: 180, fps: 15 };
const LISTENERS = {
  "chromium-single": (t, server) => t.joinPage(server, "bob", { connect: { autoSubscribe: false } }),
  "chromium-dual": (t, server) => t.joinPage(server, "bob", { singlePeerConnection: false, connect: { autoSubscribe: false } }),
  "python-default": (t, server) => t.joinPython(server, "bob", { autoSubscribe: false }),
  "python-dual": (t, server) => t.joinPython(server, "bob", { autoSubscribe: false, singlePeerConnection: false }),
};

for (const [kind, join] of Object.entries(LISTENERS)) {
  test(`${kind} subscribes, unsubscribes and subscribes again`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice");
    const bob = await join(t, server);
    await alice.call("publishTone", { hz: 440 });
    await alice.call("publishPictures", SMALL);
    await until("bob knows of both tracks", 15_000, async () => {
      const tracks = (await bob.call("state")).participants[0]?.tracks ?? [];
      return tracks.length === 2 || { waiting: tracks };
    });
    assert.deepEqual(await bob.call("media"), {}, "nothing was subscribed");
    for (let round = 0; round < 3; round += 1) {
      for (const name of ["tone", "pictures"]) await bob.call("setSubscribed", { identity: "alice", name, subscribed: true });
      await hearsTone(bob, "alice/tone", 440);
      await seesPictures(bob, "alice/pictures", 10);
      for (const name of ["tone", "pictures"]) await bob.call("setSubscribed", { identity: "alice", name, subscribed: false });
      await until("bob has let go", 15_000, async () => {
        const media = Object.keys(await bob.call("media"));
        return media.length === 0 || { waiting: media };
      });
    }
    await sawEvent(bob, "bob let go", ({ event, key }) => event === "trackUnsubscribed" && key === "alice/tone");
    await stayedConnected(alice, bob);
  });
}
