// Clients that the traces have not met: Firefox, and the Node SDK.
import assert from "node:assert/strict";
import { hearsTone, sawEvent, seesFrames, seesPictures, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const DEADLINE_MS = 30_000;
const SMALL = { width: 320, height: 180, fps: 10 };

async function exchangeData(...pair) {
  for (const [who, other] of [pair, pair.toReversed()]) {
    for (const reliable of [true, false]) {
      const text = `${who.identity} ${reliable}`;
      // What is sent on the lossy channel may get lost.
      await until(`${other.identity} has ${text}`, DEADLINE_MS, async () => {
        await who.call("publishData", { text, reliable, topic: "t" });
        const { data } = await other.call("received");
        return data.find((packet) => packet.text === text && packet.from === who.identity) ?? { waiting: data };
      });
    }
  }
}

test("the Node SDK and Chromium hear, see and write to each other", async (t) => {
  const server = await t.server();
  const alice = await t.joinNode(server, "alice");
  const bob = await t.joinPage(server, "bob");
  for (const who of [alice, bob]) {
    await who.call("publishTone", { hz: 440 });
    await who.call("publishPictures", SMALL);
  }
  await seesPictures(bob, "alice/pictures", 20);
  await seesPictures(alice, "bob/pictures", 20);
  await hearsTone(bob, "alice/tone", 440);
  await hearsTone(alice, "bob/tone", 440);
  await exchangeData(alice, bob);
  await bob.call("registerRpc");
  const { result } = await alice.call("performRpc", { to: "bob", method: "echo", payload: "hello" });
  assert.equal(result, "alice: hello");
  await alice.call("unpublish", { name: "pictures" });
  await sawEvent(bob, "the pictures have ended", ({ event, key }) => event === "trackUnsubscribed" && key === "alice/pictures");
  await stayedConnected(alice, bob);
});

for (const single of [true, false]) {
  const model = single ? "the single connection" : "the pair of connections";

  test(`Firefox on ${model} and Chromium meet`, async (t) => {
    const server = await t.server();
    const alice = await t.joinFirefox(server, "alice", { singlePeerConnection: single });
    const bob = await t.joinPage(server, "bob");
    await bob.call("publishPictures", SMALL);
    await bob.call("publishTone", { hz: 440 });
    await alice.call("publishCamera");
    await alice.call("publishMicrophone");
    await seesFrames(bob, "alice/camera", 20);
    await seesFrames(alice, "bob/pictures", 20);
    await sawEvent(bob, "bob has the microphone", ({ event, key }) => event === "trackSubscribed" && key === "alice/microphone");
    await sawEvent(alice, "alice has the tone", ({ event, key }) => event === "trackSubscribed" && key === "bob/tone");
    await exchangeData(alice, bob);
    // A track that begins and one that ends after the first negotiation.
    await bob.call("unpublish", { name: "pictures" });
    await bob.call("publishPictures", { ...SMALL, name: "again" });
    await seesFrames(alice, "bob/again", 20);
    await stayedConnected(alice, bob);
  });
}
