// How media finds its way: IPv6, ICE-lite and full ICE, one port for all.
import assert from "node:assert/strict";
import { availableParallelism } from "node:os";
import { hearsTone, seesFrames, seesPictures, stayedConnected } from "../harness/expect.js";
import { playing } from "../harness/playing.js";
import { test } from "../harness/test.js";

const SMALL = { width: 320, height: 180, fps: 15 };

test("IPv6 and IPv4 in one room", async (t) => {
  const server = await t.server();
  // The player's sockets are bound to the address that it reaches the server by.
  const six = await t.joinPlayer(server, "six", { url: server.urlV6 });
  const sixPair = await t.joinPlayer(server, "six-pair", { url: server.urlV6, singlePeerConnection: false });
  const page = await t.joinPage(server, "page");
  await six.play();
  await page.call("publishTone", { hz: 660 });
  await page.call("publishPictures", SMALL);
  await seesFrames(page, "six/camera", 20);
  await hearsTone(page, "six/microphone", 440);
  for (const who of [six, sixPair]) {
    await seesFrames(who, "page/pictures", 20);
    await seesFrames(who, "page/tone", 50);
    assert.deepEqual(await who.call("faults"), { violations: [], missing: {} });
  }
  await stayedConnected(six, sixPair, page);
});

for (const single of [true, false]) {
  test(`Chromium over IPv6 alone, on ${single ? "the single connection" : "the pair"}`, async (t) => {
    const server = await t.server('rtc: {node_ip: "::1", enable_loopback_candidate: false}\nkeys: {devkey: secret}\n', { dev: false });
    const alice = await t.joinPage(server, "alice", { url: server.urlV6, singlePeerConnection: single });
    const bob = await t.joinPage(server, "bob", { url: server.urlV6, singlePeerConnection: single });
    await alice.call("publishTone", { hz: 440 });
    await alice.call("publishPictures", SMALL);
    await hearsTone(bob, "alice/tone", 440);
    await seesPictures(bob, "alice/pictures", 15);
    const [path] = await alice.call("paths");
    assert.match(path.address, /^\[?::1\]?:\d+$/, JSON.stringify(path));
  });
}

for (const lite of [true, false]) {
  test(`a server that ${lite ? "is ICE-lite, with a client that asks for full ICE" : "does full ICE"}`, async (t) => {
    const server = await t.server(`rtc: {use_ice_lite: ${lite}}\n`);
    const everybody = [
      await t.joinPage(server, "single"),
      await t.joinPage(server, "dual", { singlePeerConnection: false }),
      await t.joinPage(server, "asks-for-full", { connect: { disableIceLite: true } }),
      await t.joinPage(server, "asks-for-full-dual", { singlePeerConnection: false, connect: { disableIceLite: true } }),
      await t.joinPython(server, "python"),
      await t.joinPython(server, "python-dual", { singlePeerConnection: false }),
    ];
    for (const who of everybody) await who.call("publishTone", { hz: 440 });
    for (const who of everybody) {
      for (const other of everybody.filter((each) => each !== who)) await hearsTone(who, `${other.identity}/tone`, 440);
    }
    for (const page of everybody.filter(({ page }) => page !== undefined)) {
      for (const path of await page.call("paths")) assert.equal(path.lite, lite && !page.identity.startsWith("asks"), page.identity);
    }
    await stayedConnected(...everybody);
  });
}

for (const single of [true, false]) {
  test(`one port for all media threads, on ${single ? "the single connection" : "the pair of connections"}`, async (t) => {
    const server = await t.server();
    const { alice, bob } = await playing(t, server, single);
    const everybody = [alice, bob];
    // Which thread hears whom is for the kernel to say: more come until one is heard by another's.
    while (availableParallelism() > 1 && (await server.handovers()).total === 0) {
      assert.ok(everybody.length < 12, "nobody's datagrams came to another thread");
      const more = await t.joinPage(server, `page-${everybody.length}`, { singlePeerConnection: single });
      await hearsTone(more, "alice/tone", 440);
      await seesPictures(more, "bob/pictures", 15);
      everybody.push(more);
    }
    assert.equal((await server.handovers()).lost, 0);
    await stayedConnected(...everybody);
  });
}
