// Who cannot decode the first codec of a publication is sent its backup.
import assert from "node:assert/strict";
import { seesFrames, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const KEY = "alice/pictures";
const DEADLINE_MS = 20_000;
// livekit-client's BackupCodecPolicy.
const POLICIES = { regression: 0, simulcast: 1 };

async function isSent(who, codec) {
  return until(`${who.identity} is sent ${codec}`, DEADLINE_MS, async () => {
    const seen = (await who.call("media"))[KEY];
    return seen?.rtp.codec === codec && seen.rtp.framesPerSecond > 0 ? seen : { waiting: seen?.rtp ?? null };
  });
}

// The codecs of which `who` has sent something within a second.
async function sends(who, wanted) {
  return until(`${who.identity} sends ${wanted}`, DEADLINE_MS, async () => {
    const before = await who.call("sendingByCodec", { name: "pictures" });
    await new Promise((done) => setTimeout(done, 1000));
    const after = await who.call("sendingByCodec", { name: "pictures" });
    const codecs = Object.keys(after).filter((codec) => after[codec] > (before[codec] ?? 0)).sort();
    return codecs.join() === wanted.join() ? true : { waiting: codecs };
  });
}

for (const videoCodec of ["vp9", "av1"]) {
  for (const [policy, backupCodecPolicy] of Object.entries(POLICIES)) {
    for (const [model, options] of [["single", {}], ["pair", { singlePeerConnection: false }]]) {
      test(`m-backup codec of ${videoCodec}, ${policy}, ${model}`, { full: model === "pair" && videoCodec === "av1" }, async (t) => {
        const server = await t.server();
        const first = `video/${videoCodec.toUpperCase()}`;
        const alice = await t.joinPage(server, "alice", { dynacast: true, ...options });
        const bob = await t.joinPage(server, "bob", options);
        const publication = { width: 640, height: 360, videoCodec, backupCodec: { codec: "vp8" }, backupCodecPolicy };
        await alice.call("publishPictures", publication);
        await isSent(bob, first);
        await sends(alice, [first]);

        const carol = await t.joinPage(server, "carol", { ...options, withoutCodecs: [first] });
        await isSent(carol, "video/VP8");
        await seesFrames(carol, KEY, 10);
        const expected = policy === "regression" ? "video/VP8" : first;
        await isSent(bob, expected);
        await seesFrames(bob, KEY, 10);
        await sends(alice, [...new Set([expected, "video/VP8"])].sort());
        const seen = (await bob.call("media"))[KEY];
        // Where one codec ends and the other begins a picture may come in both.
        assert.equal(seen.backwards, 0, "pictures in order");
        assert.ok(seen.read > seen.frames / 2, "pictures that can be read");
        t.note(`bob: ${seen.rtp.codec}, longest gap ${Math.round(seen.longestGapMs)} ms, ${seen.rtp.freezeCount} freezes`);
        await stayedConnected(alice, bob, carol);
      });
    }
  }
}
