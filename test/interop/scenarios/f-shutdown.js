// The server's end, and a participant's.
import assert from "node:assert/strict";
import { hearsTone, sawEvent } from "../harness/expect.js";
import { test } from "../harness/test.js";

for (const signal of ["SIGTERM", "SIGINT"]) {
  test(`${signal} tells everybody SERVER_SHUTDOWN and ends the server`, async (t) => {
    const server = await t.server();
    const everybody = [
      await t.joinPage(server, "web-single"),
      await t.joinPage(server, "web-dual", { singlePeerConnection: false }),
      await t.joinPython(server, "py-default"),
      await t.joinPython(server, "py-dual", { singlePeerConnection: false }),
    ];
    server.signal(signal);
    for (const who of everybody) {
      await sawEvent(who, "the server says that it ends", ({ event, reason }) => event === "disconnected" && reason === "SERVER_SHUTDOWN");
    }
    assert.equal(await server.ended(), 0);
  });
}

test("who leaves is seen leaving at once", async (t) => {
  const server = await t.server();
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPython(server, "bob");
  await alice.call("disconnect");
  await sawEvent(bob, "alice left", ({ event, identity }) => event === "participantDisconnected" && identity === "alice");
  const { participants } = await bob.call("state");
  assert.deepEqual(participants, []);
});

test("a second join with the same identity replaces the first", async (t) => {
  const server = await t.server();
  const first = await t.joinPage(server, "alice");
  const second = await t.joinPage(server, "alice");
  await sawEvent(first, "the first is told", ({ event, reason }) => event === "disconnected" && reason === "DUPLICATE_IDENTITY");
  assert.equal((await second.call("state")).connection, "connected");
});

for (const single of [true, false]) {
  test(`a tab that crashes is noticed, on ${single ? "the single connection" : "the pair"}`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice", { singlePeerConnection: single });
    const bob = await t.joinPython(server, "bob");
    await alice.call("publishTone", { hz: 440 });
    await hearsTone(bob, "alice/tone", 440);
    const crashed = performance.now();
    await alice.page.goto("chrome://crash").catch(() => {});
    await sawEvent(bob, "alice left", ({ event, identity }) => event === "participantDisconnected" && identity === "alice");
    t.note(`seen by the others after ${((performance.now() - crashed) / 1000).toFixed(1)} s`);
  });
}
