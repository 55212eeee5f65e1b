// Five participants with camera and microphone: one in Chromium, four of core/client that play
// recorded encodings.
import assert from "node:assert/strict";
import { hearWithoutGaps, seesFrames, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const PLAYED_FPS = 15;
const PACKETS_PER_SECOND = 50;
const PLAYED_HZ = 440;
// What may be missing of a stream at the two ends of a measurement, and longest silence.
const SHARE = 0.9;
const LONGEST_GAP_MS = 1000;

async function fiveParticipants(t, seconds) {
  const server = await t.server();
  const lostBefore = await server.lost();
  const page = await t.joinPage(server, "chromium");
  await page.call("publishMicrophone");
  await page.call("publishCamera", { capture: { resolution: { width: 640, height: 360 } }, simulcast: false });
  const players = [];
  for (const [index, single] of [true, false, true, false].entries()) {
    const player = await t.joinPlayer(server, `player-${index}`, { singlePeerConnection: single });
    await player.play();
    players.push(player);
  }
  const everybody = [page, ...players];
  for (const who of everybody) {
    for (const other of everybody.filter((each) => each !== who)) {
      await seesFrames(who, `${other.identity}/camera`, 5);
      if (who !== page) await seesFrames(who, `${other.identity}/microphone`, 10);
    }
  }

  const before = await page.call("media");
  for (const player of players) await player.call("resetMedia");
  const [started, cpu] = [performance.now(), server.cpuSeconds()];
  await hearWithoutGaps(players.map(({ identity }) => [page, `${identity}/microphone`, PLAYED_HZ]), seconds * 1000);
  await until(`${seconds} s have passed`, seconds * 1000, () => performance.now() - started > seconds * 1000);
  const elapsed = (performance.now() - started) / 1000;
  t.note(`server: ${((100 * (server.cpuSeconds() - cpu)) / elapsed).toFixed(1)} % of a core over ${elapsed.toFixed(0)} s`);

  const after = await page.call("media");
  for (const { identity } of players) {
    const [then, now] = [before, after].map((media) => media[`${identity}/camera`].rtp);
    const text = `chromium of ${identity}: ${JSON.stringify(now)}`;
    assert.equal(now.freezeCount, then.freezeCount, `no freeze, ${text}`);
    assert.equal(now.totalFreezesDuration, then.totalFreezesDuration, `no freeze, ${text}`);
    assert.ok(now.framesDecoded - then.framesDecoded > SHARE * PLAYED_FPS * elapsed, `every picture, ${text}`);
  }
  const missing = {};
  for (const player of players) {
    const media = await player.call("media");
    for (const other of everybody.filter((each) => each !== player)) {
      const [camera, microphone] = ["camera", "microphone"].map((name) => media[`${other.identity}/${name}`]);
      const text = `${player.identity} of ${other.identity}: ${JSON.stringify({ camera, microphone })}`;
      // Chromium's camera may be slower than the recording.
      if (other !== page) assert.ok(camera.frames > SHARE * PLAYED_FPS * elapsed, text);
      assert.ok(microphone.frames > SHARE * PACKETS_PER_SECOND * elapsed, text);
      assert.ok(Math.max(camera.longestGapMs, microphone.longestGapMs) < LONGEST_GAP_MS, text);
    }
    const faults = await player.call("faults");
    assert.deepEqual(faults.violations, [], player.identity);
    for (const [sender, count] of Object.entries(faults.missing)) missing[sender] = (missing[sender] ?? 0) + count;
  }
  // A machine that is behind may lose packets, and then it is known where. (What a scrape asks for is
  // on the page of the next.)
  const absent = Object.values(missing).reduce((sum, count) => sum + count, 0);
  await until(`${JSON.stringify(missing)} missing packets are counted`, 5000, async () => {
    const lost = Object.entries(await server.lost()).map(([cause, count]) => [cause, count - lostBefore[cause]]);
    return absent <= lost.reduce((sum, [, count]) => sum + count, 0) || { waiting: lost };
  });
  if (absent > 0) t.note(`missing: ${JSON.stringify(missing)}; counted: ${await server.counted()}`);
  assert.ok(!server.log().includes("panicked"), "the server did not panic");
  await stayedConnected(...everybody);
}

test("one in Chromium and four of core/client see and hear each other", async (t) => fiveParticipants(t, 10));

test("the same for a minute, without a freeze", { full: true, deadlineMs: 240_000 }, async (t) => fiveParticipants(t, 60));
