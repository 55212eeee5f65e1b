// A participant with @livekit/rtc-node, driven by the runner with lines of JSON on stdin.
// page/participant.js has the same methods, and more.
import { createInterface } from "node:readline";
import * as rtc from "@livekit/rtc-node";
import { AudioMeter, BLOCK_SAMPLES, SAMPLE_RATE, VideoMeter, counterPicture, tone } from "./media.js";

const { Room, RoomEvent, TrackKind } = rtc;
const room = new Room();
const events = [];
const received = { data: [] };
const meters = new Map();
const published = new Map();

const keyOf = (participant, publication) => `${participant.identity}/${publication.name}`;
const log = (event, detail = {}) => events.push({ event, atMs: performance.now(), ...detail });

async function meterTrack(track, meter) {
  if (track.kind === TrackKind.KIND_AUDIO) {
    for await (const frame of new rtc.AudioStream(track, SAMPLE_RATE, 1)) meter.samples(frame.data);
  } else {
    for await (const { frame } of new rtc.VideoStream(track)) {
      const { data, width, height } = frame.convert(rtc.VideoBufferType.I420);
      meter.frame(data, width, height);
    }
  }
}

room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
  const key = keyOf(participant, publication);
  const isAudio = track.kind === TrackKind.KIND_AUDIO;
  const meter = isAudio ? new AudioMeter() : new VideoMeter();
  meters.set(key, { kind: isAudio ? "audio" : "video", sid: publication.sid, meter });
  meterTrack(track, meter).catch((error) => log("meterFailed", { key, error: String(error) }));
  log("trackSubscribed", { key });
});
room.on(RoomEvent.TrackUnsubscribed, (_, publication, participant) => {
  const key = keyOf(participant, publication);
  if (meters.get(key)?.sid === publication.sid) meters.delete(key);
  log("trackUnsubscribed", { key });
});
room.on(RoomEvent.ParticipantConnected, ({ identity }) => log("participantConnected", { identity }));
room.on(RoomEvent.ParticipantDisconnected, ({ identity }) => log("participantDisconnected", { identity }));
room.on(RoomEvent.Reconnecting, () => log("reconnecting"));
room.on(RoomEvent.Reconnected, () => log("reconnected"));
room.on(RoomEvent.Disconnected, (reason) => log("disconnected", { reason }));
room.on(RoomEvent.DataReceived, (payload, participant, kind, topic) => {
  const text = new TextDecoder().decode(payload);
  const reliable = kind === rtc.DataPacketKind.KIND_RELIABLE;
  received.data.push({ text, from: participant?.identity ?? null, reliable, topic: topic ?? "" });
});

async function publish(name, track, source) {
  const options = new rtc.TrackPublishOptions({ source, simulcast: false, dtx: false, videoCodec: rtc.VideoCodec.VP8 });
  const publication = await room.localParticipant.publishTrack(track, options);
  published.set(name, publication);
  return publication.sid;
}

const methods = {
  async connect({ url, token }) {
    await room.connect(url, token, { autoSubscribe: true, dynacast: false });
    return { sid: room.localParticipant.sid, room: room.name };
  },

  events: () => events,
  received: () => received,
  media: () => Object.fromEntries([...meters].map(([key, { kind, meter }]) => [key, { kind, ...meter.report() }])),

  resetMedia() {
    for (const { meter } of meters.values()) meter.reset();
  },

  async publishTone({ name = "tone", hz = 440 }) {
    const source = new rtc.AudioSource(SAMPLE_RATE, 1, 200);
    const sid = await publish(name, rtc.LocalAudioTrack.createAudioTrack(name, source), rtc.TrackSource.SOURCE_MICROPHONE);
    const play = async () => {
      // `captureFrame` returns when there is room in the queue: the source sets the pace.
      for (let first = 0; published.has(name); first += BLOCK_SAMPLES) {
        await source.captureFrame(new rtc.AudioFrame(tone(hz, first), SAMPLE_RATE, 1, BLOCK_SAMPLES));
      }
    };
    play().catch((error) => log("playFailed", { error: String(error) }));
    return sid;
  },

  async publishPictures({ name = "pictures", width = 640, height = 360, fps = 15 }) {
    const source = new rtc.VideoSource(width, height);
    const sid = await publish(name, rtc.LocalVideoTrack.createVideoTrack(name, source), rtc.TrackSource.SOURCE_CAMERA);
    let counter = 0;
    const timer = setInterval(() => {
      if (!published.has(name)) return clearInterval(timer);
      const picture = counterPicture(width, height, counter % 65536);
      source.captureFrame(new rtc.VideoFrame(picture, width, height, rtc.VideoBufferType.I420));
      counter += 1;
    }, 1000 / fps);
    return sid;
  },

  async unpublish({ name }) {
    const { sid } = published.get(name);
    published.delete(name);
    await room.localParticipant.unpublishTrack(sid);
  },

  async publishData({ text, reliable = true, to = [], topic = "" }) {
    const payload = new TextEncoder().encode(text);
    await room.localParticipant.publishData(payload, { reliable, destination_identities: to, topic });
  },

  async performRpc({ to, method, payload }) {
    return { result: await room.localParticipant.performRpc({ destinationIdentity: to, method, payload }) };
  },
};

async function answer({ id, method, params }) {
  try {
    const result = await methods[method](params);
    process.stdout.write(`${JSON.stringify({ id, result: result ?? null })}\n`);
  } catch (error) {
    console.error(error);
    process.stdout.write(`${JSON.stringify({ id, error: String(error) })}\n`);
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => answer(JSON.parse(line)));
// The runner has closed stdin: leave, and do not wait for long.
lines.on("close", async () => {
  setTimeout(() => process.exit(0), 5000);
  await room.disconnect().catch(() => {});
  process.exit(0);
});
