// Participants that are forwarded and moved to other rooms by LiveKit's own Node SDK.
import assert from "node:assert/strict";
import { hearsTone, sawEvent, seesPictures, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

test("a forwarded participant is seen and heard in both rooms, in Chromium and Python", async (t) => {
  const server = await t.server();
  const api = t.api(server);
  const alice = await t.joinPage(server, "alice", { room: "one" });
  await alice.call("publishTone", { hz: 440 });
  const dave = await t.joinPage(server, "dave", { room: "one" });
  await hearsTone(dave, "alice/tone", 440);
  // The room does not exist yet: it is made on the thread of the first.
  await api.forwardParticipant("one", "alice", "two");
  const bob = await t.joinPage(server, "bob", { room: "two" });
  const carol = await t.joinPython(server, "carol", { room: "two" });
  for (const who of [bob, carol]) await hearsTone(who, "alice/tone", 440);
  // What is published later comes, too.
  await alice.call("publishPictures", {});
  await seesPictures(bob, "alice/pictures");
  const listed = (await api.listParticipants("two")).find(({ identity }) => identity === "alice");
  assert.equal(listed.tracks.length, 2);
  assert.deepEqual([...listed.kindDetails], [1]);
  await api.removeParticipant("two", "alice");
  await sawEvent(bob, "bob sees alice go", ({ event, identity }) => event === "participantDisconnected" && identity === "alice");
  await stayedConnected(alice);
  await hearsTone(dave, "alice/tone", 440);
  await api.forwardParticipant("one", "alice", "two");
  await hearsTone(carol, "alice/tone", 440);
  await alice.call("disconnect");
  await until("alice is gone from the second room", 10_000, async () => {
    const there = (await api.listParticipants("two")).map(({ identity }) => identity);
    return !there.includes("alice");
  });
});

test("rooms on two media threads share who is forwarded and who is moved", async (t) => {
  const server = await t.server(undefined, { mediaThreads: 2 });
  const api = t.api(server);
  const alice = await t.joinPage(server, "alice", { room: "one" });
  await alice.call("publishTone", { hz: 440 });
  await alice.call("publishPictures", {});
  const dave = await t.joinPage(server, "dave", { room: "one" });
  await seesPictures(dave, "alice/pictures");
  // The second room comes to the thread with less.
  const bob = await t.joinPage(server, "bob", { room: "two" });
  const carol = await t.joinPython(server, "carol", { room: "two" });
  await carol.call("publishTone", { hz: 880 });
  await hearsTone(bob, "carol/tone", 880);
  await api.forwardParticipant("one", "alice", "two");
  for (const who of [bob, carol]) await hearsTone(who, "alice/tone", 440);
  await seesPictures(bob, "alice/pictures");
  await alice.call("mute", { name: "pictures", muted: true });
  await alice.call("mute", { name: "pictures", muted: false });
  for (const who of [bob, dave]) await seesPictures(who, "alice/pictures");
  await api.removeParticipant("two", "alice");
  await sawEvent(bob, "bob sees alice go", ({ event, identity }) => event === "participantDisconnected" && identity === "alice");
  await api.moveParticipant("one", "alice", "two");
  await sawEvent(alice, "alice is moved", ({ event, name }) => event === "moved" && name === "two");
  await seesPictures(bob, "alice/pictures");
  await hearsTone(carol, "alice/tone", 440);
  await hearsTone(alice, "carol/tone", 880);
  const names = (await alice.call("events")).map(({ event }) => event);
  assert.ok(!names.includes("reconnecting") && !names.includes("disconnected"), names.join(" "));
});

for (const [model, options] of [["/rtc/v1", { singlePeerConnection: true }], ["/rtc", { singlePeerConnection: false }]]) {
  test(`a participant is moved with its connection, on ${model}`, async (t) => {
    const server = await t.server();
    const api = t.api(server);
    const alice = await t.joinPage(server, "alice", { room: "one", ...options });
    await alice.call("publishTone", { hz: 440 });
    await alice.call("publishPictures", {});
    const dave = await t.joinPage(server, "dave", { room: "one", ...options });
    await dave.call("publishTone", { hz: 660 });
    await seesPictures(dave, "alice/pictures");
    await hearsTone(alice, "dave/tone", 660);
    await api.moveParticipant("one", "alice", "two");
    await sawEvent(alice, "alice is moved", ({ event, name }) => event === "moved" && name === "two");
    await sawEvent(dave, "dave sees her go", ({ event, identity }) => event === "participantDisconnected" && identity === "alice");
    const bob = await t.joinPage(server, "bob", { room: "two", ...options });
    await bob.call("publishTone", { hz: 880 });
    await seesPictures(bob, "alice/pictures");
    await hearsTone(bob, "alice/tone", 440);
    await hearsTone(alice, "bob/tone", 880);
    const state = await alice.call("state");
    assert.deepEqual([state.name, state.participants.map(({ identity }) => identity)], ["two", ["bob"]]);
    const names = (await alice.call("events")).map(({ event }) => event);
    assert.ok(!names.includes("reconnecting") && !names.includes("disconnected"), names.join(" "));
    // A second time, back to who is still there.
    await api.moveParticipant("two", "alice", "one");
    await seesPictures(dave, "alice/pictures");
    await hearsTone(alice, "dave/tone", 660);
    await alice.call("simulate", { scenario: "signal-reconnect" });
    await sawEvent(alice, "her session goes on there", ({ event }) => event === "reconnected");
    await seesPictures(dave, "alice/pictures");
  });
}
