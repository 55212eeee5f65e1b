// A video that a subscriber leaves ends on black pictures, of every codec, and its decoder takes them.
import assert from "node:assert/strict";
import { seesFrames, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";

const KEY = "alice/pictures";
// The pictures of the server's own are so wide. How many are decoded before the section ends is
// a matter of how busy the machine is.
const BLACK_WIDTH = 16;
// What a browser tells of a decoder is up to 50 ms old, and after its section has ended it tells
// nothing: the last it told may be from before. Then the subscriber comes and leaves again.
const LEAVES = 5;

const PUBLICATIONS = [
  { videoCodec: "vp8" },
  { videoCodec: "h264" },
  { videoCodec: "vp9", scalabilityMode: "L3T3_KEY" },
  { videoCodec: "av1", scalabilityMode: "L3T3_KEY" },
];

for (const publication of PUBLICATIONS) {
  test(`m-last pictures of ${publication.videoCodec} are black`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice");
    const bob = await t.joinPage(server, "bob");
    await alice.call("publishPictures", { width: 640, height: 360, fps: 15, backupCodec: false, ...publication });
    let seen;
    for (let leaves = 0; leaves < LEAVES && seen?.frameWidth !== BLACK_WIDTH; leaves += 1) {
      await bob.call("setSubscribed", { identity: "alice", name: "pictures", subscribed: true });
      await seesFrames(bob, KEY, 20);
      const { before, after } = await bob.call("lastPictures", { identity: "alice", name: "pictures" });
      t.note(`${JSON.stringify(before)} then ${JSON.stringify(after)}`);
      assert.equal(after.pliCount, before.pliCount, "the decoder asked for nothing");
      if (after.frameWidth === BLACK_WIDTH) assert.ok(after.keyFramesDecoded > before.keyFramesDecoded, "decoded as keyframes");
      seen = after;
    }
    assert.equal(seen.frameWidth, BLACK_WIDTH);
    await stayedConnected(alice, bob);
  });
}
