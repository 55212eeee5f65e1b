// Data packets, streams and RPC, between both SDKs and both connection models.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const DEADLINE_MS = 20_000;
const ORDERED_MESSAGES = 50;

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

// Four participants that have all heard of each other by a reliable packet.
async function everybody(t) {
  const server = await t.server();
  const all = [
    await t.joinPage(server, "web-single"),
    await t.joinPage(server, "web-dual", { singlePeerConnection: false }),
    await t.joinPython(server, "py-default"),
    await t.joinPython(server, "py-dual", { singlePeerConnection: false }),
  ];
  for (const sender of all) {
    const others = all.filter((who) => who !== sender);
    await until(`everybody hears ${sender.identity}'s hello`, DEADLINE_MS, async () => {
      await sender.call("publishData", { text: "hello", topic: "hello" });
      const heard = await Promise.all(others.map((who) => packets(who, sender, "hello")));
      const deaf = others.filter((_, index) => heard[index].length === 0).map((who) => who.identity);
      return deaf.length === 0 || { waiting: deaf };
    });
  }
  return all;
}

async function packets(who, sender, topic) {
  const { data } = await who.call("received");
  return data.filter((packet) => packet.from === sender.identity && packet.topic === topic);
}

test("reliable packets arrive once and in order, with topic and sender", async (t) => {
  const all = await everybody(t);
  const texts = [...Array(ORDERED_MESSAGES).keys()].map((index) => `message ${index}`);
  for (const sender of all) {
    for (const text of texts) await sender.call("publishData", { text, topic: "ordered" });
  }
  for (const sender of all) {
    for (const who of all.filter((other) => other !== sender)) {
      const got = await until(`${who.identity} has all of ${sender.identity}`, DEADLINE_MS, async () => {
        const seen = await packets(who, sender, "ordered");
        return seen.length >= texts.length ? seen : { waiting: seen.length };
      });
      assert.deepEqual(got.map((packet) => packet.text), texts, `${sender.identity} to ${who.identity}`);
      assert.ok(got.every((packet) => packet.reliable));
    }
    assert.deepEqual(await packets(sender, sender, "ordered"), [], "nobody hears itself");
  }
  await stayedConnected(...all);
});

test("lossy packets arrive, and as lossy ones", async (t) => {
  const all = await everybody(t);
  for (const sender of all) {
    const others = all.filter((who) => who !== sender);
    await until(`everybody has a lossy packet of ${sender.identity}`, DEADLINE_MS, async () => {
      await sender.call("publishData", { text: "lossy", reliable: false, topic: "lossy" });
      const seen = await Promise.all(others.map((who) => packets(who, sender, "lossy")));
      assert.ok(seen.flat().every((packet) => !packet.reliable));
      const deaf = others.filter((_, index) => seen[index].length === 0).map((who) => who.identity);
      return deaf.length === 0 || { waiting: deaf };
    });
  }
});

test("a packet for one participant reaches that one only", async (t) => {
  const all = await everybody(t);
  for (const [index, sender] of all.entries()) {
    const target = all[(index + 1) % all.length];
    await sender.call("publishData", { text: "for you", to: [target.identity], topic: "directed" });
    // What comes after it on the same ordered channel says that it cannot come any more.
    await sender.call("publishData", { text: "done", topic: "after" });
    for (const who of all.filter((other) => other !== sender)) {
      await until(`${who.identity} has ${sender.identity}'s end`, DEADLINE_MS, async () => (await packets(who, sender, "after")).length > 0);
      const expected = who === target ? ["for you"] : [];
      assert.deepEqual((await packets(who, sender, "directed")).map((packet) => packet.text), expected);
    }
  }
});

test("text and byte streams arrive whole, small and large, to all and to one", async (t) => {
  const all = await everybody(t);
  const small = "short text";
  const large = "Parlor räumt auf. ".repeat(6000);
  const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, index) => (index * 31 + (index >> 8)) & 255));
  for (const who of all) await who.call("receiveStreams", { topic: "stream" });
  for (const [index, sender] of all.entries()) {
    const target = all[(index + 1) % all.length];
    await sender.call("sendText", { text: small, topic: "stream", attributes: { a: "1" } });
    await sender.call("sendText", { text: large, topic: "stream" });
    await sender.call("sendBytes", { base64: bytes.toString("base64"), topic: "stream", name: "all.bin" });
    await sender.call("sendBytes", { base64: "AQID", topic: "stream", name: "one.bin", to: [target.identity] });
    for (const who of all.filter((other) => other !== sender)) {
      const files = who === target ? ["all.bin", "one.bin"] : ["all.bin"];
      const got = await until(`${who.identity} has the streams of ${sender.identity}`, DEADLINE_MS, async () => {
        const received = await who.call("received");
        const mine = (list) => list.filter((entry) => entry.from === sender.identity);
        const now = { texts: mine(received.texts), files: mine(received.files) };
        return now.texts.length >= 2 && now.files.length >= files.length ? now : { waiting: now };
      });
      const digests = got.texts.map((entry) => entry.sha256).sort();
      assert.deepEqual(digests, [sha256(small), sha256(large)].sort(), `${sender.identity} to ${who.identity}`);
      assert.equal(got.texts.find((entry) => entry.sha256 === sha256(small)).attributes.a, "1");
      assert.deepEqual(got.files.map((entry) => entry.name).sort(), files);
      assert.equal(got.files.find((entry) => entry.name === "all.bin").sha256, sha256(bytes));
    }
  }
  await stayedConnected(...all);
});

test("RPC: an answer, an error of the method, an unknown method, an absent participant", async (t) => {
  const all = await everybody(t);
  for (const who of all) await who.call("registerRpc");
  for (const caller of all) {
    for (const who of all.filter((other) => other !== caller)) {
      const between = `${caller.identity} calls ${who.identity}`;
      const call = (method, payload) => caller.call("performRpc", { to: who.identity, method, payload, timeoutMs: 10_000 });
      assert.deepEqual(await call("echo", "ping"), { result: `${caller.identity}: ping` }, between);
      const long = "x".repeat(12_000);
      assert.deepEqual(await call("echo", long), { result: `${caller.identity}: ${long}` }, between);
      const { error } = await call("fail", "");
      assert.deepEqual(error, { code: 2001, message: "as asked", data: "details" }, between);
      assert.equal((await call("nope", "")).error.code, 1400, between);
    }
  }
  const absent = await Promise.all(
    all.map((caller) => caller.call("performRpc", { to: "nobody", method: "echo", payload: "", timeoutMs: 10_000 })),
  );
  for (const { error } of absent) assert.ok([1401, 1501].includes(error?.code), JSON.stringify(absent));
});

test("a packet of a kind that nobody knows passes as it is, with its sender appended", async (t) => {
  const all = await everybody(t);
  const pages = all.filter(({ page }) => page !== undefined);
  for (const page of pages) await page.call("keepRaw");
  // Field 99 of a DataPacket, length-delimited.
  const unknown = Buffer.concat([Buffer.from([0x9a, 0x06, 15]), Buffer.from("from the future")]);
  for (const sender of pages) {
    const receiver = pages.find((page) => page !== sender);
    await sender.call("sendRaw", { base64: unknown.toString("base64") });
    await until(`${receiver.identity} has the bytes of ${sender.identity}`, DEADLINE_MS, async () => {
      const raw = (await receiver.call("received")).raw.map((text) => Buffer.from(text, "base64"));
      return raw.some((bytes) => bytes.indexOf(unknown) === 0 && bytes.includes(sender.identity)) || { waiting: raw.length };
    });
  }
  // Clients that do not know it go on.
  for (const who of all) {
    await who.call("publishData", { text: "still here", topic: "after" });
    for (const other of all.filter((each) => each !== who)) {
      await until(`${other.identity} hears ${who.identity}`, DEADLINE_MS, async () => (await packets(other, who, "after")).length > 0);
    }
  }
  await stayedConnected(...all);
});

test("who may not publish data is not heard", async (t) => {
  const server = await t.server();
  const mute = await t.joinPage(server, "mute", { grant: { canPublishData: false } });
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPage(server, "bob");
  await mute.call("publishData", { text: "psst", topic: "secret" }).catch(() => {});
  await until("bob hears alice", DEADLINE_MS, async () => {
    await alice.call("publishData", { text: "hello", topic: "hello" });
    return (await packets(bob, alice, "hello")).length > 0;
  });
  assert.deepEqual(await packets(bob, mute, "secret"), []);
});

for (const singlePeerConnection of [true, false]) {
  test(`bytes on a channel of another name arrive as data, singlePeerConnection ${singlePeerConnection}`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice", { singlePeerConnection });
    const bob = await t.joinPage(server, "bob", { singlePeerConnection });
    await until("both hear each other", DEADLINE_MS, async () => {
      await alice.call("publishData", { text: "hello", topic: "" });
      return (await bob.call("received")).data.some(({ text }) => text === "hello");
    });
    await alice.call("sendUnlabelled", { text: "raw bytes" });
    const heard = await until("bob hears it", DEADLINE_MS, async () =>
      (await bob.call("received")).data.find(({ text }) => text === "raw bytes"),
    );
    assert.deepEqual([heard.from, heard.reliable], ["alice", true]);
    await stayedConnected(alice, bob);
  });
}

// Frames that fit into a packet and frames that take many.
const FRAME_BYTES = [64, 20_000];
const FRAMES_OF_EACH = 10;

for (const singlePeerConnection of [true, false]) {
  test(`frames of a data track arrive whole and in order, singlePeerConnection ${singlePeerConnection}`, async (t) => {
    const server = await t.server();
    const [alice, bob] = [await t.joinPage(server, "alice", { singlePeerConnection }), await t.joinPage(server, "bob", { singlePeerConnection })];
    await alice.call("publishDataTrack", { name: "points" });
    let value = 0;
    // Nothing repeats what is lost, nor what is sent before anybody subscribes.
    const heard = await until("bob gets frames of all sizes", DEADLINE_MS, async () => {
      for (const size of FRAME_BYTES) await alice.call("pushFrame", { name: "points", size, value: (value += 1) });
      const { frames } = await bob.call("received");
      const counts = FRAME_BYTES.map((size) => frames.filter((frame) => frame.size === size).length);
      return value > 250 || counts.every((count) => count >= FRAMES_OF_EACH) ? frames : { waiting: counts };
    });
    for (const size of FRAME_BYTES) assert.ok(heard.filter((frame) => frame.size === size).length >= FRAMES_OF_EACH, `${size} bytes: ${JSON.stringify(heard)}`);
    assert.ok(heard.every(({ name, isWhole }) => name === "points" && isWhole), JSON.stringify(heard));
    assert.deepEqual(heard.map((frame) => frame.value), heard.map((frame) => frame.value).toSorted((a, b) => a - b));
    await stayedConnected(alice, bob);
  });
}
