// Chromium on the single connection (/rtc/v1), the default of livekit-client.
import assert from "node:assert/strict";
import { bestOf, hearWithoutGaps, hearsTone, seesFrames, seesPictures, stayedConnected } from "../harness/expect.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

test("the fake microphone and camera of each page reach the other", async (t) => {
  const server = await t.server();
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPage(server, "bob");
  for (const page of [alice, bob]) {
    await page.call("publishMicrophone");
    await page.call("publishCamera", { capture: { resolution: { width: 640, height: 360 } }, simulcast: false });
  }
  for (const [who, other] of [[alice, "bob"], [bob, "alice"]]) {
    const video = await seesFrames(who, `${other}/camera`, 30);
    t.note(`${who.identity}: first frame ${Math.round(video.firstFrameMs)} ms after subscribing, ${video.rtp.codec}`);
    await until(`${who.identity} hears the beeps of ${other}`, 30_000, async () => {
      const heard = (await who.call("media"))[`${other}/microphone`];
      return heard?.heardMs > 50 || { waiting: heard };
    });
  }
  await stayedConnected(alice, bob);
});

for (const simulcast of [false, true]) {
  test(`VP8 pictures arrive in order, simulcast ${simulcast ? "on" : "off"}, with a tone, both ways`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice");
    const bob = await t.joinPage(server, "bob");
    await alice.call("publishTone", { hz: 440 });
    await alice.call("publishPictures", { simulcast });
    await bob.call("publishTone", { hz: 660 });
    await bob.call("publishPictures", { simulcast });
    for (const [who, key] of [[alice, "bob/pictures"], [bob, "alice/pictures"]]) {
      const video = await seesPictures(who, key, 60);
      assert.equal(video.rtp.codec, "video/VP8");
      t.note(`${who.identity}: first frame ${Math.round(video.firstFrameMs)} ms after subscribing, ${video.width}x${video.height}`);
    }
    if (simulcast) {
      await until("bob gets the highest layer", 30_000, async () => {
        const { width } = (await bob.call("media"))["alice/pictures"];
        return width === 640 || { waiting: width };
      });
    }
    await hearWithoutGaps([[alice, "bob/tone", 660], [bob, "alice/tone", 440]], 5000);
    await stayedConnected(alice, bob);
  });
}

test("H264 pictures arrive in order", async (t) => {
  const server = await t.server();
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPage(server, "bob");
  await alice.call("publishPictures", { videoCodec: "h264" });
  const video = await seesPictures(bob, "alice/pictures", 30);
  assert.equal(video.rtp.codec, "video/H264");
});

test("who joins later sees and hears what is already there", async (t) => {
  const server = await t.server();
  const alice = await t.joinPage(server, "alice");
  await alice.call("publishTone", { hz: 440 });
  await alice.call("publishPictures", { simulcast: true });
  const bob = await t.joinPage(server, "bob");
  const video = await seesPictures(bob, "alice/pictures", 30);
  await hearsTone(bob, "alice/tone", 440);
  t.note(`first frame ${Math.round(video.firstFrameMs)} ms after subscribing`);
});

for (const single of [true, false]) {
  test(`the first frame comes within a second of subscribing, on ${single ? "one connection" : "the pair"}`, async (t) => {
    const server = await t.server();
    const alice = await t.joinPage(server, "alice");
    const bob = await t.joinPage(server, "bob", { singlePeerConnection: single, connect: { autoSubscribe: false } });
    await alice.call("publishPictures", { simulcast: true });
    const pictures = { identity: "alice", name: "pictures" };
    await until("bob knows of the track", 15_000, async () => (await bob.call("state")).participants[0]?.tracks.length === 1);
    const ms = await bestOf("the first frame", 1000, async () => {
      const asked = await bob.call("setSubscribed", { ...pictures, subscribed: true });
      const { startedAtMs, firstFrameMs } = await seesFrames(bob, "alice/pictures", 1);
      await bob.call("setSubscribed", { ...pictures, subscribed: false });
      await until("bob has let go", 15_000, async () => Object.keys(await bob.call("media")).length === 0);
      return startedAtMs + firstFrameMs - asked;
    });
    t.note(`first frame ${ms} ms after it was asked for`);
  });
}

test("a 720p camera reaches its bitrate in the usual seconds", async (t) => {
  const server = await t.server();
  const alice = await t.joinPage(server, "alice");
  const bob = await t.joinPage(server, "bob");
  // Chromium probes at the start and then every five seconds.
  const ms = await bestOf("1.2 Mbit/s for a 720p camera", 12_000, async (attempt) => {
    const name = `pictures-${attempt}`;
    const started = performance.now();
    await alice.call("publishPictures", { name, width: 1280, height: 720, fps: 20 });
    await seesPictures(bob, `alice/${name}`, 10);
    const encoding = await until("alice's encoder is allowed 1.2 Mbit/s", 40_000, async () => {
      const [now] = await alice.call("sending", { name });
      return now?.targetBitrate > 1_200_000 ? now : { waiting: now };
    });
    t.note(`the path is taken for ${Math.round(encoding.availableOutgoingBitrate / 1000)} kbit/s`);
    await alice.call("unpublish", { name });
    return performance.now() - started;
  });
  t.note(`1.2 Mbit/s ${(ms / 1000).toFixed(1)} s after it was published`);
});

test("a token that is not valid is refused", async (t) => {
  const server = await t.server();
  const page = await t.page("mallory");
  await assert.rejects(page.call("connect", { url: server.url, token: "not.a.token" }), /invalid authorization token/);
  const python = t.python("mallory-too");
  await assert.rejects(python.call("connect", { url: server.url, token: "not.a.token" }), /ConnectError/);
});
