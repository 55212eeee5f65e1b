// Sessions that go on after a break, or begin anew, while media plays both ways.
import assert from "node:assert/strict";
import { sawEvent, stayedConnected } from "../harness/expect.js";
import { playing, plays } from "../harness/playing.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const DEADLINE_MS = 30_000;

const texts = async (who, topic) =>
  (await who.call("received")).data.filter((packet) => packet.topic === topic).map(({ text }) => text);

async function resumes(t, single, rounds) {
  const { alice, bob } = await playing(t, await t.server(), single);
  // Nothing has been said before the first resume: what is said during it is sent again too.
  const expected = { alice: [], bob: [] };
  for (let round = 0; round < rounds; round += 1) {
    await bob.call("simulate", { scenario: "signal-reconnect" });
    for (let index = 0; index < 10; index += 1) {
      for (const who of [alice, bob]) {
        const text = `${who.identity} ${round} ${index}`;
        expected[who.identity].push(text);
        await who.call("publishData", { text, topic: "numbered" });
      }
    }
    const done = async () => (await bob.call("events")).filter(({ event }) => event === "reconnected").length > round;
    await until(`round ${round} is over`, DEADLINE_MS, done);
  }
  for (const [who, other] of [[alice, bob], [bob, alice]]) {
    await until(`${who.identity} has all`, DEADLINE_MS, async () => {
      const got = await texts(who, "numbered");
      return got.length >= expected[other.identity].length || { waiting: got.length };
    });
    assert.deepEqual(await texts(who, "numbered"), expected[other.identity]);
  }
  await plays(alice, bob);
  const names = (await alice.call("events")).map(({ event }) => event);
  assert.ok(!names.includes("participantDisconnected"), "alice has seen nothing");
}

for (const single of [true, false]) {
  const model = single ? "the single connection" : "the pair of connections";

  const resumed = (rounds) => `a lost signal socket is resumed, ${rounds} times, and no message is lost on ${model}`;
  test(resumed(5), async (t) => resumes(t, single, 5));
  test(resumed(100), { full: true, deadlineMs: 900_000 }, async (t) => resumes(t, single, 100));

  for (const scenario of ["full-reconnect", "node-failure", "migration", "resume-reconnect", "disconnect-signal-on-resume", "disconnect-signal-on-resume-no-messages", "leave-full-reconnect"]) {
    test(`${scenario}: media flows again on ${model}`, async (t) => {
      const { alice, bob } = await playing(t, await t.server(), single);
      await bob.call("simulate", { scenario });
      await sawEvent(bob, "bob is back", ({ event }) => event === "reconnected");
      await plays(alice, bob);
      await stayedConnected(alice);
    });
  }

  test(`server-leave ends for good on ${model}`, async (t) => {
    const { alice, bob } = await playing(t, await t.server(), single);
    await bob.call("simulate", { scenario: "server-leave" });
    await sawEvent(bob, "bob is out", ({ event, reason }) => event === "disconnected" && reason === "SERVER_SHUTDOWN");
    await sawEvent(alice, "alice is told", ({ event, identity }) => event === "participantDisconnected" && identity === "bob");
    await stayedConnected(alice);
  });
}
