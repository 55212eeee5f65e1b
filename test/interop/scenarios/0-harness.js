// The harness against itself, without a server: what measures must be right first.
import assert from "node:assert/strict";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

test("pictures and a tone survive a pair of connections inside Chromium", async (t) => {
  const page = await t.page("loop");
  await page.call("loopBack", { hz: 440, width: 320, height: 180, fps: 15 });
  const media = await until("30 pictures and a second of sound", 30_000, async () => {
    const seen = await page.call("media");
    const ready = seen["loop/video"]?.read >= 30 && seen["loop/audio"]?.heardMs > 1000;
    return ready ? seen : { waiting: seen };
  });
  const { video, audio } = { video: media["loop/video"], audio: media["loop/audio"] };
  assert.equal(video.backwards, 0, JSON.stringify(video));
  assert.ok(video.last - video.first >= video.read - 1, JSON.stringify(video));
  assert.ok(video.unreadable <= 1, JSON.stringify(video));
  await until("440 Hz is measured", 10_000, async () => {
    const { hz } = (await page.call("media"))["loop/audio"];
    return Math.abs(hz - 440) < 2 || { waiting: hz };
  });
  t.note(`first picture after ${Math.round(video.firstFrameMs)} ms, longest silence ${audio.longestGapMs} ms`);
});

test("the Python meters read synthetic pictures, tones and gaps", async (t) => {
  const python = t.python("self");
  const { video, audio } = await python.call("selfCheck", { hz: 440 });
  assert.deepEqual([video.frames, video.read, video.unreadable], [6, 5, 1]);
  assert.deepEqual([video.first, video.last, video.backwards], [0, 65535, 0]);
  assert.ok(Math.abs(audio.hz - 440) < 1, JSON.stringify(audio));
  assert.ok(audio.longestGapMs >= 40 && audio.longestGapMs <= 60, JSON.stringify(audio));
});
