// Who speaks, and that it is told in time.
import assert from "node:assert/strict";
import { hearsTone, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const speakerEvents = async (client) => (await client.call("events")).filter(({ event }) => event === "activeSpeakers");

// The first event from the `from`th on in which alice speaks, or does not.
const sawAlice = (client, from, speaks) =>
  until(`${client.identity} ${speaks ? "sees" : "does not see"} alice speak`, 5_000, async () => {
    const events = (await speakerEvents(client)).slice(from);
    const found = events.find(({ speakers }) => "alice" in speakers === speaks);
    return found ?? { waiting: events };
  });

for (const single of [true, false]) {
  const model = single ? "the single connection" : "the pair of connections";
  test(`a tone starts, stops, and starts again, on ${model}`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice", { singlePeerConnection: single });
    const bob = await t.joinPage(server, "bob", { singlePeerConnection: single });
    await alice.call("publishTone", { hz: 440 });
    await hearsTone(bob, "alice/tone", 440);
    for (const client of [alice, bob]) await sawAlice(client, 0, true);
    for (let round = 1; round <= 2; round += 1) {
      let seen = (await speakerEvents(bob)).length;
      let started = performance.now();
      await alice.call("setToneGain", { gain: 0 });
      await sawAlice(bob, seen, false);
      const endMs = Math.round(performance.now() - started);
      seen = (await speakerEvents(bob)).length;
      started = performance.now();
      await alice.call("setToneGain", { gain: 0.3 });
      const { speakers } = await sawAlice(bob, seen, true);
      const startMs = Math.round(performance.now() - started);
      t.note(`round ${round}: heard after ${startMs} ms, silent after ${endMs} ms, level ${speakers.alice}`);
      assert.ok(startMs < 1_300, `speech was told after ${startMs} ms`);
      assert.ok(endMs < 1_300, `silence was told after ${endMs} ms`);
      assert.ok(speakers.alice * 8 === Math.round(speakers.alice * 8), `level ${speakers.alice}`);
    }
    // A steady tone and a steady silence are told once: the level moves up in two steps at most.
    assert.ok((await speakerEvents(bob)).length <= 20);
    const before = (await speakerEvents(bob)).length;
    await alice.call("mute", { name: "tone", muted: true });
    await sawAlice(bob, before, false);
    await stayedConnected(alice, bob);
  });
}
