// Webhooks, taken by the receiver of LiveKit's own Node SDK.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { WebhookReceiver } from "livekit-server-sdk";
import { API_KEY, API_SECRET } from "../harness/server.js";
import { test } from "../harness/test.js";
import { until } from "../harness/until.js";

const DEADLINE_MS = 60_000;

// Takes webhooks at `url` once it has refused `refusals`.
async function receiver(t, refusals = 0) {
  const events = [];
  const sdk = new WebhookReceiver(API_KEY, API_SECRET);
  const http = createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    if (refusals > 0) {
      refusals -= 1;
      response.writeHead(500).end();
      return;
    }
    // What is not signed well is kept as the error that it is.
    events.push(await sdk.receive(Buffer.concat(parts).toString(), request.headers.authorization).catch((error) => error));
    response.end();
  });
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  t.open.push({ stop: async () => http.close() });
  return { events, url: `http://127.0.0.1:${http.address().port}/hook` };
}

for (const [what, refusals] of [["are received", 0], ["are sent again to a receiver that fails", 3]]) {
  test(`webhooks of a session ${what}, signed and in order`, async (t) => {
    const { events, url } = await receiver(t, refusals);
    const server = await t.server(`webhook: {api_key: ${API_KEY}, urls: ["${url}"]}\n`);
    const alice = await t.joinPage(server, "alice");
    const sid = await alice.call("publishTone", { hz: 440 });
    await until("the track is told of", DEADLINE_MS, () => events.some(({ event }) => event === "track_published"));
    await t.api(server).deleteRoom("room");
    await until("the end is told of", DEADLINE_MS, () => events.some(({ event }) => event === "room_finished"));
    assert.deepEqual(
      events.map(({ event }) => event),
      ["room_started", "participant_joined", "track_published", "track_unpublished", "participant_left", "room_finished"],
    );
    assert.deepEqual([...new Set(events.map(({ room }) => room.name))], ["room"]);
    assert.equal(events[2].track.sid, sid);
    assert.equal(new Set(events.map(({ id }) => id)).size, events.length, "each has an id of its own");
  });
}
