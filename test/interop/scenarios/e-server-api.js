// The server API with LiveKit's own Node SDK, and its effect on clients.
import assert from "node:assert/strict";
import { DataPacket_Kind } from "livekit-server-sdk";
import { hearsTone, sawEvent, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const refusedWith = (status) => (error) => error.status === status || assert.fail(`${error.status} ${error.message}`);

test("rooms are created, listed, filtered and deleted", async (t) => {
  const server = await t.server();
  const api = t.api(server);
  const room = await api.createRoom({ name: "one", emptyTimeout: 60, maxParticipants: 4, metadata: "m" });
  assert.match(room.sid, /^RM_/);
  assert.deepEqual([room.name, room.emptyTimeout, room.maxParticipants, room.metadata], ["one", 60, 4, "m"]);
  const again = await api.createRoom({ name: "one" });
  assert.equal(again.sid, room.sid, "a room that is there is given back");
  await api.createRoom({ name: "two" });
  assert.deepEqual((await api.listRooms()).map(({ name }) => name).sort(), ["one", "two"]);
  assert.deepEqual((await api.listRooms(["two", "absent"])).map(({ name }) => name), ["two"]);
  await api.deleteRoom("one");
  assert.deepEqual((await api.listRooms()).map(({ name }) => name), ["two"]);
  await assert.rejects(api.deleteRoom("one"), refusedWith(404));
});

test("a wrong secret and an unknown key are refused", async (t) => {
  const server = await t.server();
  await assert.rejects(t.api(server, "devkey", "wrong").listRooms(), refusedWith(401));
  await assert.rejects(t.api(server, "nobody", "secret").listRooms(), refusedWith(401));
});

test("participants are listed, and one is removed with its reason", async (t) => {
  const server = await t.server();
  const api = t.api(server);
  assert.deepEqual(await api.listParticipants("absent"), []);
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPython(server, "bob");
  const sid = await alice.call("publishTone", {});
  const listed = await until("both are listed, alice with her track", 10_000, async () => {
    const participants = await api.listParticipants("room");
    const tracks = participants.find(({ identity }) => identity === "alice")?.tracks ?? [];
    return participants.length === 2 && tracks.length === 1 ? participants : { waiting: participants.length };
  });
  assert.deepEqual(listed.map(({ identity }) => identity).sort(), ["alice", "bob"]);
  assert.equal((await api.getParticipant("room", "alice")).tracks[0].sid, sid);
  await assert.rejects(api.getParticipant("room", "ghost"), refusedWith(404));
  await assert.rejects(api.removeParticipant("room", "ghost"), refusedWith(404));
  await hearsTone(bob, "alice/tone", 440);
  await api.removeParticipant("room", "alice");
  await sawEvent(alice, "alice is told", ({ event, reason }) => event === "disconnected" && reason === "PARTICIPANT_REMOVED");
  await sawEvent(bob, "bob is told", ({ event, identity }) => event === "participantDisconnected" && identity === "alice");
  await stayedConnected(bob);
});

test("a published track is muted by the API", async (t) => {
  const server = await t.server();
  const api = t.api(server);
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPage(server, "bob");
  const sid = await alice.call("publishTone", { hz: 440 });
  await hearsTone(bob, "alice/tone", 440);
  const track = await api.mutePublishedTrack("room", "alice", sid, true);
  assert.deepEqual([track.sid, track.muted], [sid, true]);
  await sawEvent(bob, "bob sees it muted", ({ event, key }) => event === "trackMuted" && key === "alice/tone");
  await until("alice's own track is muted", 10_000, async () => (await alice.call("state")).own[0].muted);
  await assert.rejects(api.mutePublishedTrack("room", "alice", sid, false), refusedWith(412));
});

test("data of the server reaches all, one, and by topic", async (t) => {
  const server = await t.server();
  const api = t.api(server);
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPython(server, "bob");
  const heard = async (who, text) => (await who.call("received")).data.find((packet) => packet.text === text);
  const bytes = (text) => new TextEncoder().encode(text);
  for (const who of [alice, bob]) {
    const packet = await until(`${who.identity} hears the server`, 15_000, async () => {
      await api.sendData("room", bytes("to all"), DataPacket_Kind.RELIABLE, { topic: "news" });
      return heard(who, "to all");
    });
    assert.deepEqual([packet.from, packet.topic, packet.reliable], [null, "news", true]);
  }
  await api.sendData("room", bytes("to bob"), DataPacket_Kind.RELIABLE, { destinationIdentities: ["bob"] });
  await api.sendData("room", bytes("the end"), DataPacket_Kind.RELIABLE, {});
  for (const who of [alice, bob]) await until("the end", 10_000, () => heard(who, "the end"));
  assert.ok(await heard(bob, "to bob"));
  assert.equal(await heard(alice, "to bob"), undefined);
});

test("deleting a room ends its participants with the reason", async (t) => {
  const server = await t.server();
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPython(server, "bob");
  await t.api(server).deleteRoom("room");
  for (const who of [alice, bob]) {
    await sawEvent(who, "the room is deleted", ({ event, reason }) => event === "disconnected" && reason === "ROOM_DELETED");
  }
  assert.deepEqual(await t.api(server).listRooms(), []);
});
