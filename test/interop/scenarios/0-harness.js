// The harness against itself, without a server: what measures must be right first.
import assert from "node:assert/strict";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const WAYS = {
  "a pair of connections inside Chromium": (t) => t.page("loop"),
  "the Python SDK's sources": (t) => t.python("loop"),
};
for (const [way, start] of Object.entries(WAYS)) {
  test(`pictures and a tone survive ${way}`, async (t) => {
    const who = await start(t);
    await who.call("loopBack", { hz: 440, width: 320, height: 180, fps: 15 });
    const { video, audio } = await until("30 pictures and a second of 440 Hz", 30_000, async () => {
      const { "loop/video": video, "loop/audio": audio } = await who.call("media");
      const ready = video?.read >= 30 && audio?.heardMs > 1000 && Math.abs(audio.hz - 440) < 2;
      return ready ? { video, audio } : { waiting: { video, audio } };
    });
    assert.equal(video.backwards, 0, JSON.stringify(video));
    assert.ok(video.last - video.first >= video.read - 1, JSON.stringify(video));
    assert.ok(video.unreadable <= 1, JSON.stringify(video));
    assert.ok(audio.longestGapMs <= 20, JSON.stringify(audio));
    t.note(`first picture after ${Math.round(video.firstFrameMs)} ms, longest silence ${audio.longestGapMs} ms`);
  });
}

test("the Python meters read synthetic pictures, tones and gaps", async (t) => {
  const python = t.python("self");
  const { video, audio } = await python.call("selfCheck", { hz: 440 });
  assert.deepEqual([video.frames, video.read, video.unreadable], [6, 5, 1]);
  assert.deepEqual([video.first, video.last, video.backwards], [0, 65535, 0]);
  assert.ok(Math.abs(audio.hz - 440) < 1, JSON.stringify(audio));
  assert.ok(audio.longestGapMs >= 40 && audio.longestGapMs <= 60, JSON.stringify(audio));
});
