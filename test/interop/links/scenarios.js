// The rows of the table of *Bad networks*: what is done to the link, and what must be measured.
// `need` names what a row is judged by; each gives the fault, or null.
import { secondsUntil, watch } from "./call.js";

const OPEN_KBPS = 4000;
const SETTLE_S = 12;

const below = (field, limit) => (row) => (row[field] < limit ? null : `${field} ${row[field]}, must be below ${limit}`);
const atMost = (field, limit) => (row) => (row[field] !== null && row[field] <= limit ? null : `${field} ${row[field]}, at most ${limit}`);
const frames = (least) => (row) => (row.frameShare >= least ? null : `${row.frameShare} of the frames, at least ${least}`);
const only = (height) => (row) => (row.heights.join() === String(height) ? null : `${row.heights.join(", ")}p, must be ${height}p`);
const noFreeze = atMost("freezes", 0);
const paused = (row) => (row.stream === "paused" && row.fps === 0 ? null : `stream ${row.stream} at ${row.fps} fps, must be paused`);

const shows = (height) => (before, after) =>
  after.video.frameHeight === height && after.video.framesDecoded > before.video.framesDecoded;

async function lossy(t, percent) {
  t.net.rate(null);
  const { alice, bob } = await t.call();
  await watch(alice, bob, 5);
  t.net.loss(percent);
  // The first loss meets an estimate that knows nothing of it, as everywhere.
  return [[`${percent} % random loss`, await watch(alice, bob, 20, t.trace)]];
}

export const scenarios = {
  ramp: {
    need: { "a publisher on an open link": [atMost("ramp720S", 3)] },
    async run(t) {
      t.net.rate(null);
      const { alice, bob, ramp720S } = await t.call();
      return [["a publisher on an open link", { ...(await watch(alice, bob, 4, t.trace)), ramp720S }]];
    },
  },
  asis: {
    need: {},
    async run(t) {
      const { alice, bob } = await t.call();
      const first = await watch(alice, bob, SETTLE_S, t.trace);
      return [["as it is, first 12 s", first], ["as it is, after 12 s", await watch(alice, bob, 20, t.trace)]];
    },
  },
  "700": {
    need: { "700 kbit/s, after 12 s": [only(360), frames(0.97), noFreeze, below("lossPercent", 0.5)] },
    async run(t) {
      t.net.rate(700);
      const { alice, bob } = await t.call();
      const first = await watch(alice, bob, SETTLE_S, t.trace);
      return [["700 kbit/s, first 12 s", first], ["700 kbit/s, after 12 s", await watch(alice, bob, 20, t.trace)]];
    },
  },
  fall: {
    need: {
      "4 Mbit/s to 600 kbit/s, first 8 s": [below("lossPercent", 6), atMost("frozenS", 0.6), below("concealedPercent", 0.5)],
      "600 kbit/s, the 12 s after": [only(360), frames(0.97), atMost("lossPercent", 0.01)],
      "back to 4 Mbit/s": [atMost("until720S", 8), noFreeze],
    },
    async run(t) {
      t.net.rate(OPEN_KBPS);
      const { alice, bob } = await t.call();
      const open = await watch(alice, bob, SETTLE_S, t.trace);
      t.net.rate(600);
      const first = await watch(alice, bob, 8, t.trace);
      const after = await watch(alice, bob, 12, t.trace);
      t.net.rate(OPEN_KBPS);
      const until = secondsUntil(alice, bob, 30, shows(720));
      const back = { ...(await watch(alice, bob, 12, t.trace)), until720S: await until };
      return [
        ["4 Mbit/s", open],
        ["4 Mbit/s to 600 kbit/s, first 8 s", first],
        ["600 kbit/s, the 12 s after", after],
        ["back to 4 Mbit/s", back],
      ];
    },
  },
  "90": {
    need: {
      "90 kbit/s, after 8 s": [paused, below("roundTripMs", 120), below("concealedPercent", 0.3)],
      "90 kbit/s to 4 Mbit/s": [atMost("untilVideoS", 3)],
    },
    async run(t) {
      t.net.rate(OPEN_KBPS);
      const { alice, bob } = await t.call();
      await watch(alice, bob, 8, t.trace);
      t.net.rate(90);
      const first = await watch(alice, bob, 8, t.trace);
      const after = await watch(alice, bob, 20, t.trace);
      t.net.rate(OPEN_KBPS);
      const moves = (before, now) => now.video.framesDecoded > before.video.framesDecoded;
      const untilVideoS = await secondsUntil(alice, bob, 30, moves);
      const back = { ...(await watch(alice, bob, 8, t.trace)), untilVideoS };
      return [["90 kbit/s, first 8 s", first], ["90 kbit/s, after 8 s", after], ["90 kbit/s to 4 Mbit/s", back]];
    },
  },
  loss5: {
    need: { "5 % random loss": [frames(0.96), noFreeze] },
    run: (t) => lossy(t, 5),
  },
  loss15: {
    need: { "15 % random loss": [frames(0.94), atMost("freezes", 1), atMost("frozenS", 0.3)] },
    run: (t) => lossy(t, 15),
  },
};
