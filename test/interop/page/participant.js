// A participant with livekit-client, driven by the runner through `globalThis.participant`.
// python/participant.py has the same methods.
import * as livekit from "/livekit-client.js";
import { AudioMeter, VideoMeter, countingTrack, toneTrack } from "/media.js";

const { Room, RoomEvent, RpcError, Track } = livekit;

let room;
const events = [];
const received = { data: [], texts: [], files: [], raw: [], frames: [] };
// What is measured, by "identity/track name".
const meters = new Map();
const published = new Map();

const trackKey = (participant, publication) => `${participant.identity}/${publication.trackName || publication.source}`;

async function sha256(bytes) {
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// `plain`: tracks are played and not measured.
function watch(plain) {
  const log = (event, detail = {}) => events.push({ event, atMs: performance.now(), ...detail });
  room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
    const key = trackKey(participant, publication);
    if (plain) {
      document.body.append(track.attach());
      log("trackSubscribed", { key });
      return;
    }
    meters.get(key)?.meter.stop();
    const Meter = track.kind === Track.Kind.Audio ? AudioMeter : VideoMeter;
    meters.set(key, { kind: track.kind, track, sid: publication.trackSid, meter: new Meter(track.mediaStreamTrack) });
    log("trackSubscribed", { key });
  });
  room.on(RoomEvent.TrackUnsubscribed, (_, publication, participant) => {
    const key = trackKey(participant, publication);
    if (meters.get(key)?.sid === publication.trackSid) {
      meters.get(key).meter.stop();
      meters.delete(key);
    }
    log("trackUnsubscribed", { key });
  });
  room.on(RoomEvent.TrackStreamStateChanged, (publication, state, participant) => {
    log("trackStreamState", { key: trackKey(participant, publication), state });
  });
  for (const name of ["TrackPublished", "TrackUnpublished", "TrackMuted", "TrackUnmuted"]) {
    const event = name[0].toLowerCase() + name.slice(1);
    room.on(RoomEvent[name], (publication, participant) => log(event, { key: trackKey(participant, publication) }));
  }
  for (const name of ["ParticipantConnected", "ParticipantDisconnected"]) {
    const event = name[0].toLowerCase() + name.slice(1);
    room.on(RoomEvent[name], (participant) => log(event, { identity: participant.identity }));
  }
  room.on(RoomEvent.ActiveSpeakersChanged, (speakers) => {
    log("activeSpeakers", { speakers: Object.fromEntries(speakers.map((one) => [one.identity, one.audioLevel])) });
  });
  room.on(RoomEvent.ConnectionQualityChanged, (quality, participant) => {
    log("connectionQuality", { quality, identity: participant.identity });
  });
  room.on(RoomEvent.ConnectionStateChanged, (state) => log("connectionState", { state }));
  room.on(RoomEvent.SignalReconnecting, () => log("signalReconnecting"));
  room.on(RoomEvent.Reconnecting, () => log("reconnecting"));
  room.on(RoomEvent.Reconnected, () => log("reconnected"));
  room.on(RoomEvent.Disconnected, (reason) => log("disconnected", { reason: livekit.DisconnectReason[reason] }));
  room.on(RoomEvent.Moved, (name) => log("moved", { name }));
  room.on(RoomEvent.EncryptionError, (error) => log("encryptionError", { message: error.message }));
  room.on(RoomEvent.DataTrackPublished, async (track) => {
    for await (const { payload } of track.subscribe({ bufferSize: 1000 })) {
      const [value] = payload;
      received.frames.push({ name: track.info.name, size: payload.length, value, isWhole: payload.every((byte) => byte === value) });
    }
  });
  room.on(RoomEvent.DataReceived, (payload, participant, kind, topic) => {
    received.data.push({
      text: new TextDecoder().decode(payload),
      from: participant?.identity ?? null,
      reliable: kind === livekit.DataPacket_Kind.RELIABLE,
      topic: topic ?? "",
    });
  });
}

async function encryption(password) {
  const keyProvider = new livekit.ExternalE2EEKeyProvider();
  await keyProvider.setKey(password);
  return { keyProvider, worker: new Worker("/e2ee.worker.js", { type: "module" }) };
}

// Sections that receive come to offer and to answer none of these codecs.
function forgetCodecs(mimeTypes) {
  const { addTransceiver, createAnswer } = RTCPeerConnection.prototype;
  const forget = (transceiver) => {
    const { codecs } = RTCRtpReceiver.getCapabilities("video");
    transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => !mimeTypes.includes(mimeType)));
  };
  RTCPeerConnection.prototype.addTransceiver = function (what, init) {
    const transceiver = addTransceiver.call(this, what, init);
    if (what === "video" && init?.direction === "recvonly") forget(transceiver);
    return transceiver;
  };
  RTCPeerConnection.prototype.createAnswer = function (...options) {
    this.getTransceivers().filter(({ receiver }) => receiver.track.kind === "video").forEach(forget);
    return createAnswer.apply(this, options);
  };
}

globalThis.participant = {
  // `options` are livekit-client's RoomOptions, `connect` its RoomConnectOptions. A `password` makes
  // all media and data encrypted; what is in `withoutCodecs` ("video/AV1") is received by nobody here.
  async connect({ url, token, options = {}, connect = {}, password, withoutCodecs = [], plain = false }) {
    livekit.setLogLevel("debug");
    if (withoutCodecs.length > 0) forgetCodecs(withoutCodecs);
    if (password) options.encryption = await encryption(password);
    room = new Room(options);
    watch(plain);
    if (password) await room.setE2EEEnabled(true);
    await room.connect(url, token, connect);
    return { sid: room.localParticipant.sid, room: room.name };
  },

  disconnect: () => room.disconnect(),

  async publishDataTrack({ name }) {
    published.set(name, await room.localParticipant.publishDataTrack({ name }));
  },

  // A frame of so many bytes, each with the same value.
  pushFrame: ({ name, size, value }) => published.get(name).tryPush({ payload: new Uint8Array(size).fill(value) }),

  simulate: ({ scenario, value }) => room.simulateScenario(scenario, value),
  events: () => events,
  received: () => received,

  state() {
    const tracks = (participant) =>
      [...participant.trackPublications.values()].map((publication) => ({
        sid: publication.trackSid,
        name: publication.trackName,
        kind: publication.kind,
        source: publication.source,
        muted: publication.isMuted,
        encrypted: publication.isEncrypted,
        subscribed: publication.isSubscribed ?? false,
      }));
    const participants = [...room.remoteParticipants.values()].map((participant) => ({
      identity: participant.identity,
      sid: participant.sid,
      tracks: tracks(participant),
    }));
    return { connection: room.state, name: room.name, own: tracks(room.localParticipant), participants };
  },

  // Every remote track with what its meter and the browser's statistics say.
  async media() {
    const reports = {};
    for (const [key, { kind, track, meter }] of meters) {
      const statistics = await track.getRTCStatsReport();
      const inbound = [...(statistics?.values() ?? [])].find((entry) => entry.type === "inbound-rtp") ?? {};
      const { framesDecoded, keyFramesDecoded, freezeCount, totalFreezesDuration, packetsLost, packetsReceived } = inbound;
      const { concealedSamples, silentConcealedSamples, totalSamplesReceived, pliCount, nackCount } = inbound;
      const { frameWidth, framesPerSecond } = inbound;
      const codec = statistics?.get(inbound.codecId)?.mimeType;
      const rtp = { framesDecoded, keyFramesDecoded, freezeCount, totalFreezesDuration, packetsLost, packetsReceived, codec };
      Object.assign(rtp, { concealedSamples, silentConcealedSamples, totalSamplesReceived, pliCount, nackCount });
      Object.assign(rtp, { frameWidth, framesPerSecond });
      reports[key] = { kind, startedAtMs: meter.started, ...meter.report(), rtp };
    }
    return reports;
  },

  resetMedia() {
    for (const { meter } of meters.values()) meter.reset();
  },

  async publishTone({ name = "tone", hz = 440, ...options }) {
    const publication = await room.localParticipant.publishTrack(toneTrack(hz), {
      name,
      source: Track.Source.Microphone,
      dtx: false,
      ...options,
    });
    published.set(name, publication);
    return publication.trackSid;
  },

  // `options` are livekit-client's TrackPublishOptions. `serverVersion` is what the client takes the
  // server for: VP9 and AV1 are simulcast only above 1.13.6.
  async publishPictures({ name = "pictures", width = 640, height = 360, fps = 15, serverVersion, ...options }) {
    if (serverVersion) room.localParticipant.engine.latestJoinResponse.serverInfo.version = serverVersion;
    const publication = await room.localParticipant.publishTrack(countingTrack({ width, height, fps }), {
      name,
      source: Track.Source.Camera,
      videoCodec: "vp8",
      simulcast: false,
      ...options,
    });
    published.set(name, publication);
    return publication.trackSid;
  },

  async publishMicrophone() {
    const publication = await room.localParticipant.setMicrophoneEnabled(true);
    published.set("microphone", publication);
    return publication.trackSid;
  },

  async publishCamera({ capture = {}, ...options } = {}) {
    const publication = await room.localParticipant.setCameraEnabled(true, capture, options);
    published.set("camera", publication);
    return publication.trackSid;
  },

  async unpublish({ name }) {
    await room.localParticipant.unpublishTrack(published.get(name).track, true);
    published.delete(name);
  },

  async mute({ name, muted }) {
    const publication = published.get(name);
    await (muted ? publication.mute() : publication.unmute());
  },

  // How loud the oscillator of a tone is: 0 is silence, which is sent all the same.
  setToneGain({ name = "tone", gain }) {
    published.get(name).track.mediaStreamTrack.gain.gain.value = gain;
  },

  // Whoever publishes may know of it before we are told.
  async setSubscribed({ identity, name, subscribed }) {
    const find = () => {
      const publications = room.remoteParticipants.get(identity)?.trackPublications.values() ?? [];
      return [...publications].find((candidate) => candidate.trackName === name);
    };
    while (!find()) await new Promise((told) => room.once(RoomEvent.TrackPublished, told));
    find().setSubscribed(subscribed);
    return performance.now();
  },

  // Unsubscribes, and says what the decoder had done before and until the end.
  async lastPictures({ identity, name }) {
    const { track } = meters.get(`${identity}/${name}`);
    const decoded = async () => {
      const statistics = await track.getRTCStatsReport();
      const inbound = [...(statistics?.values() ?? [])].find((entry) => entry.type === "inbound-rtp");
      const { framesDecoded, keyFramesDecoded, framesDropped, pliCount, frameWidth } = inbound ?? {};
      return inbound && { framesDecoded, keyFramesDecoded, framesDropped, pliCount, frameWidth };
    };
    const before = await decoded();
    this.setSubscribed({ identity, name, subscribed: false });
    let after = before;
    for (const ends = performance.now() + 2000; performance.now() < ends; ) {
      const now = await decoded();
      if (!now) break;
      after = now;
      await new Promise((done) => setTimeout(done, 5));
    }
    return { before, after };
  },

  // `quality` is livekit-client's VideoQuality: 0 low, 1 medium, 2 high.
  setVideoQuality({ identity, name, quality }) {
    const publications = room.remoteParticipants.get(identity)?.trackPublications.values() ?? [];
    const publication = [...publications].find((candidate) => candidate.trackName === name);
    if (!publication) throw new Error(`${identity} has no track ${name}`);
    publication.setVideoQuality(quality);
  },

  // What else a subscriber may say of a video: whether it wants it, and how many frames a second.
  setVideo({ identity, name, enabled, fps }) {
    const publications = room.remoteParticipants.get(identity)?.trackPublications.values() ?? [];
    const publication = [...publications].find((candidate) => candidate.trackName === name);
    if (!publication) throw new Error(`${identity} has no track ${name}`);
    if (enabled !== undefined) publication.setEnabled(enabled);
    if (fps !== undefined) publication.setVideoFPS(fps);
  },

  // What the sender of our own track says: outgoing encodings by rid, and the path's estimate.
  async sending({ name }) {
    const statistics = [...(await published.get(name).track.getRTCStatsReport()).values()];
    const outbound = statistics.filter((entry) => entry.type === "outbound-rtp");
    const { availableOutgoingBitrate } = statistics.find((entry) => entry.type === "candidate-pair" && entry.nominated) ?? {};
    const names = ["rid", "scalabilityMode", "active", "codecId", "framesEncoded", "frameWidth", "frameHeight", "bytesSent", "targetBitrate", "pliCount", "nackCount", "qualityLimitationReason"];
    return outbound.map((entry) => ({ ...Object.fromEntries(names.map((field) => [field, entry[field]])), availableOutgoingBitrate }));
  },

  // Every codec of our own track, with what it has sent: a backup codec is a sender of its own.
  async sendingByCodec({ name }) {
    const { track } = published.get(name);
    const senders = [track.sender, ...[...track.simulcastCodecs.values()].map(({ sender }) => sender)];
    const bytes = {};
    for (const sender of senders.filter(Boolean)) {
      const statistics = await sender.getStats();
      for (const entry of statistics.values()) {
        if (entry.type !== "outbound-rtp") continue;
        const codec = statistics.get(entry.codecId)?.mimeType ?? "none";
        bytes[codec] = (bytes[codec] ?? 0) + entry.bytesSent;
      }
    }
    return bytes;
  },

  // All that the browser says of our connections.
  async statistics() {
    const { publisher, subscriber } = room.engine.pcManager;
    const reports = await Promise.all([publisher, subscriber].filter(Boolean).map((transport) => transport.getStats()));
    return reports.flatMap((report) => [...(report?.values() ?? [])]);
  },

  // Of each connection: where the other end is, and whether its agent is ICE-lite.
  async paths() {
    const { publisher, subscriber } = room.engine.pcManager;
    const paths = [publisher, subscriber].filter(Boolean).map(async (transport) => {
      const lite = transport.getRemoteDescription()?.sdp.includes("a=ice-lite") ?? false;
      const report = await transport.getStats();
      const pair = [...report.values()].find((entry) => entry.type === "candidate-pair" && entry.nominated && entry.state === "succeeded");
      const protocol = report.get(pair?.remoteCandidateId)?.protocol ?? null;
      return { lite, protocol, address: (await transport.getConnectedAddress()) ?? null };
    });
    return Promise.all(paths);
  },

  async publishData({ text, reliable = true, to, topic }) {
    const payload = new TextEncoder().encode(text);
    await room.localParticipant.publishData(payload, { reliable, destinationIdentities: to, topic });
  },

  // Sends bytes on the reliable channel as they are.
  sendRaw({ base64 }) {
    room.engine.dataChannelForKind(livekit.DataPacket_Kind.RELIABLE).send(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)));
  },

  // Keeps what comes on data channels from now on as it is, in `received`.
  keepRaw() {
    const { engine } = room;
    const handle = engine.handleDataMessage;
    engine.handleDataMessage = async (message) => {
      const data = message.data instanceof Blob ? await message.data.arrayBuffer() : message.data;
      received.raw.push(btoa(String.fromCharCode(...new Uint8Array(data))));
      return handle(message);
    };
  },

  receiveStreams({ topic }) {
    room.registerTextStreamHandler(topic, async (reader, { identity }) => {
      const text = await reader.readAll();
      const digest = await sha256(new TextEncoder().encode(text));
      received.texts.push({ from: identity, length: text.length, sha256: digest, attributes: reader.info.attributes ?? {} });
    });
    room.registerByteStreamHandler(topic, async (reader, { identity }) => {
      const chunks = await reader.readAll();
      const bytes = new Uint8Array(await new Blob(chunks).arrayBuffer());
      const { name, mimeType } = reader.info;
      received.files.push({ from: identity, length: bytes.length, sha256: await sha256(bytes), name, mimeType });
    });
  },

  // Raw bytes on a data channel of the application's own, beside livekit-client's.
  async sendUnlabelled({ text }) {
    const channel = room.engine.pcManager.createPublisherDataChannel("my-own", { ordered: true });
    if (channel.readyState !== "open") await new Promise((open) => channel.addEventListener("open", open));
    channel.send(new TextEncoder().encode(text));
  },

  async sendText({ text, topic, to, attributes }) {
    await room.localParticipant.sendText(text, { topic, destinationIdentities: to, attributes });
  },

  async sendBytes({ base64, topic, to, name }) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    await room.localParticipant.sendFile(new File([bytes], name, { type: "application/octet-stream" }), {
      topic,
      destinationIdentities: to,
      mimeType: "application/octet-stream",
    });
  },

  // Answers "echo" with the caller and the payload, and "fail" with an error of its own.
  registerRpc() {
    room.registerRpcMethod("echo", async ({ callerIdentity, payload }) => `${callerIdentity}: ${payload}`);
    room.registerRpcMethod("fail", async () => {
      throw new RpcError(2001, "as asked", "details");
    });
  },

  async performRpc({ to, method, payload, timeoutMs }) {
    try {
      const parameters = { destinationIdentity: to, method, payload, responseTimeout: timeoutMs };
      return { result: await room.localParticipant.performRpc(parameters) };
    } catch (error) {
      return { error: { code: error.code, message: error.message, data: error.data ?? null } };
    }
  },

  // The harness against itself: a track through a pair of connections inside this page.
  async loopBack({ hz, width, height, fps }) {
    const [near, far] = [new RTCPeerConnection(), new RTCPeerConnection()];
    near.onicecandidate = ({ candidate }) => far.addIceCandidate(candidate);
    far.onicecandidate = ({ candidate }) => near.addIceCandidate(candidate);
    far.ontrack = ({ track }) => {
      const Meter = track.kind === "audio" ? AudioMeter : VideoMeter;
      const own = { getRTCStatsReport: () => far.getStats(track) };
      meters.set(`loop/${track.kind}`, { kind: track.kind, track: own, meter: new Meter(track) });
    };
    near.addTrack(toneTrack(hz));
    near.addTrack(countingTrack({ width, height, fps }));
    await near.setLocalDescription();
    await far.setRemoteDescription(near.localDescription);
    await far.setLocalDescription();
    await near.setRemoteDescription(far.localDescription);
  },
};
