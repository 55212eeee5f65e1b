// Media over TCP, where there is nothing else and where it was asked for.
import assert from "node:assert/strict";
import { sawEvent, stayedConnected } from "../harness/expect.js";
import { playing, plays } from "../harness/playing.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

async function goesOver(who, protocol, single) {
  const paths = await who.call("paths");
  const expected = Array(single ? 1 : 2).fill(protocol);
  assert.deepEqual(paths.map((path) => path.protocol), expected, JSON.stringify(paths));
}

for (const single of [true, false]) {
  const model = single ? "the single connection" : "the pair of connections";

  test(`a server that is reached over TCP alone, on ${model}`, async (t) => {
    const server = await t.server("rtc: {force_tcp: true}\n");
    const { alice, bob } = await playing(t, server, single);
    for (const who of [alice, bob]) await goesOver(who, "tcp", single);
    await alice.call("publishData", { text: "over TCP", topic: "word" });
    await sawData(bob, "over TCP");
    await stayedConnected(alice, bob);
  });

  for (const scenario of ["force-tcp", "force-tls"]) {
    test(`${scenario}: media flows again, over TCP, on ${model}`, async (t) => {
      const server = await t.server();
      const { alice, bob } = await playing(t, server, single);
      for (const who of [alice, bob]) await goesOver(who, "udp", single);
      await bob.call("simulate", { scenario });
      await sawEvent(bob, "bob is back", ({ event }) => event === "reconnected");
      await plays(alice, bob);
      await goesOver(bob, "tcp", single);
      await goesOver(alice, "udp", single);
      // A resume keeps to it.
      await bob.call("simulate", { scenario: "signal-reconnect" });
      await until("bob is resumed", 30_000, async () => (await bob.call("events")).filter(({ event }) => event === "reconnected").length > 1);
      await plays(alice, bob);
      await goesOver(bob, "tcp", single);
      await stayedConnected(alice);
    });
  }
}

async function sawData(who, text) {
  await until(`${who.identity} has ${text}`, 20_000, async () => (await who.call("received")).data.some((packet) => packet.text === text));
}
