"""A participant with the Python SDK, driven by the runner with lines of JSON on stdin.

page/participant.js has the same methods.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import sys
import time
from typing import Any

import numpy as np
from livekit import rtc

import media

OPTIONS = {"autoSubscribe": "auto_subscribe", "singlePeerConnection": "single_peer_connection", "dynacast": "dynacast"}
CODECS = {"vp8": rtc.VideoCodec.VP8, "h264": rtc.VideoCodec.H264}


def track_key(participant: rtc.Participant, publication: rtc.TrackPublication) -> str:
    return f"{participant.identity}/{publication.name}"


class Participant:
    def __init__(self) -> None:
        self.room = rtc.Room()
        self.seen: list[dict] = []
        self.inbox: dict[str, list] = {"data": [], "texts": [], "files": []}
        self.meters: dict[str, tuple[str, Any, Any, asyncio.Task]] = {}
        self.published: dict[str, tuple[rtc.LocalTrackPublication, asyncio.Task]] = {}
        self.tasks: set[asyncio.Task] = set()
        self._watch()

    def _log(self, event: str, **detail: Any) -> None:
        self.seen.append({"event": event, "atMs": time.monotonic() * 1000, **detail})

    def _task(self, work: Any) -> asyncio.Task:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _watch(self) -> None:
        room = self.room
        room.on("track_subscribed", self._subscribed)
        room.on("track_unsubscribed", self._unsubscribed)
        for name, event in [("track_published", "trackPublished"), ("track_unpublished", "trackUnpublished")]:
            room.on(name, lambda pub, who, event=event: self._log(event, key=track_key(who, pub)))
        for name, event in [("track_muted", "trackMuted"), ("track_unmuted", "trackUnmuted")]:
            room.on(name, lambda who, pub, event=event: self._log(event, key=track_key(who, pub)))
        for name, event in [
            ("participant_connected", "participantConnected"),
            ("participant_disconnected", "participantDisconnected"),
        ]:
            room.on(name, lambda who, event=event: self._log(event, identity=who.identity))
        room.on("reconnecting", lambda: self._log("reconnecting"))
        room.on("reconnected", lambda: self._log("reconnected"))
        room.on(
            "disconnected",
            lambda reason: self._log("disconnected", reason=rtc.DisconnectReason.Name(reason)),
        )
        room.on("data_received", self._data)

    def _data(self, packet: rtc.DataPacket) -> None:
        self.inbox["data"].append(
            {
                "text": packet.data.decode(),
                "from": packet.participant.identity if packet.participant else None,
                "reliable": packet.kind == rtc.DataPacketKind.KIND_RELIABLE,
                "topic": packet.topic or "",
            }
        )

    def _subscribed(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        key = track_key(who, publication)
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            kind, meter = "audio", media.AudioMeter()
            work = self._listen(track, meter)
        else:
            kind, meter = "video", media.VideoMeter()
            work = self._look(track, meter)
        self.meters[key] = (kind, track, meter, self._task(work))
        self._log("trackSubscribed", key=key)

    def _unsubscribed(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        key = track_key(who, publication)
        # The publication may be a new one of the same name.
        if key in self.meters and self.meters[key][1].sid == track.sid:
            self.meters.pop(key)[3].cancel()
        self._log("trackUnsubscribed", key=key)

    async def _listen(self, track: rtc.Track, meter: media.AudioMeter) -> None:
        stream = rtc.AudioStream(track, sample_rate=media.SAMPLE_RATE, num_channels=1)
        try:
            async for event in stream:
                meter.samples(np.frombuffer(event.frame.data, dtype=np.int16) / 32768)
        finally:
            await stream.aclose()

    async def _look(self, track: rtc.Track, meter: media.VideoMeter) -> None:
        stream = rtc.VideoStream(track, format=rtc.VideoBufferType.I420)
        try:
            async for event in stream:
                frame = event.frame
                luma = np.frombuffer(frame.data, dtype=np.uint8, count=frame.width * frame.height)
                meter.frame(luma.reshape(frame.height, frame.width))
        finally:
            await stream.aclose()

    async def connect(self, url: str, token: str, options: dict | None = None) -> dict:
        named = {OPTIONS[name]: value for name, value in (options or {}).items()}
        await self.room.connect(url, token, rtc.RoomOptions(**named))
        return {"sid": self.room.local_participant.sid, "room": self.room.name}

    async def disconnect(self) -> None:
        await self.room.disconnect()

    async def events(self) -> list[dict]:
        return self.seen

    async def received(self) -> dict:
        return self.inbox

    async def state(self) -> dict:
        def tracks(who: rtc.Participant) -> list[dict]:
            return [
                {
                    "sid": publication.sid,
                    "name": publication.name,
                    "kind": "audio" if publication.kind == rtc.TrackKind.KIND_AUDIO else "video",
                    "muted": publication.muted,
                    "subscribed": getattr(publication, "subscribed", False),
                }
                for publication in who.track_publications.values()
            ]

        participants = [
            {"identity": who.identity, "sid": who.sid, "tracks": tracks(who)}
            for who in self.room.remote_participants.values()
        ]
        connected = self.room.connection_state == rtc.ConnectionState.CONN_CONNECTED
        connection = "connected" if connected else "disconnected"
        own = tracks(self.room.local_participant)
        return {"connection": connection, "name": self.room.name, "own": own, "participants": participants}

    async def media(self) -> dict:
        return {key: {"kind": kind, **meter.report()} for key, (kind, _, meter, _) in self.meters.items()}

    async def resetMedia(self) -> None:
        for _, _, meter, _ in self.meters.values():
            meter.reset()

    async def publishTone(self, name: str = "tone", hz: float = 440) -> str:
        source = rtc.AudioSource(media.SAMPLE_RATE, 1, queue_size_ms=200)
        track = rtc.LocalAudioTrack.create_audio_track(name, source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        publication = await self.room.local_participant.publish_track(track, options)
        self.published[name] = (publication, self._task(self._play(source, hz)))
        return publication.sid

    async def _play(self, source: rtc.AudioSource, hz: float) -> None:
        first = 0
        while True:
            samples = media.tone(hz, first, media.BLOCK_SAMPLES)
            frame = rtc.AudioFrame(samples.tobytes(), media.SAMPLE_RATE, 1, media.BLOCK_SAMPLES)
            # Returns when there is room in the queue: the source sets the pace.
            await source.capture_frame(frame)
            first += media.BLOCK_SAMPLES

    async def publishPictures(
        self,
        name: str = "pictures",
        width: int = 640,
        height: int = 360,
        fps: int = 15,
        simulcast: bool = False,
        videoCodec: str = "vp8",
    ) -> str:
        source = rtc.VideoSource(width, height)
        track = rtc.LocalVideoTrack.create_video_track(name, source)
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA, simulcast=simulcast, video_codec=CODECS[videoCodec]
        )
        publication = await self.room.local_participant.publish_track(track, options)
        self.published[name] = (publication, self._task(self._show(source, width, height, fps)))
        return publication.sid

    async def _show(self, source: rtc.VideoSource, width: int, height: int, fps: int) -> None:
        next_at = time.monotonic()
        counter = 0
        while True:
            picture = media.paint_counter(width, height, counter % 65536)
            source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, picture))
            counter += 1
            next_at = max(next_at + 1 / fps, time.monotonic())
            await asyncio.sleep(next_at - time.monotonic())

    async def unpublish(self, name: str) -> None:
        publication, task = self.published.pop(name)
        task.cancel()
        await self.room.local_participant.unpublish_track(publication.sid)

    async def mute(self, name: str, muted: bool) -> None:
        track = self.published[name][0].track
        track.mute() if muted else track.unmute()

    async def setSubscribed(self, identity: str, name: str, subscribed: bool) -> None:
        publications = self.room.remote_participants[identity].track_publications.values()
        next(p for p in publications if p.name == name).set_subscribed(subscribed)

    async def publishData(
        self, text: str, reliable: bool = True, to: list[str] | None = None, topic: str = ""
    ) -> None:
        await self.room.local_participant.publish_data(
            text, reliable=reliable, destination_identities=to or [], topic=topic
        )

    async def receiveStreams(self, topic: str) -> None:
        self.room.register_text_stream_handler(topic, lambda *args: self._task(self._text(*args)))
        self.room.register_byte_stream_handler(topic, lambda *args: self._task(self._file(*args)))

    async def _text(self, reader: rtc.TextStreamReader, identity: str) -> None:
        text = await reader.read_all()
        digest = hashlib.sha256(text.encode()).hexdigest()
        entry = {"from": identity, "length": len(text), "sha256": digest, "attributes": dict(reader.info.attributes or {})}
        self.inbox["texts"].append(entry)

    async def _file(self, reader: rtc.ByteStreamReader, identity: str) -> None:
        data = b"".join([chunk async for chunk in reader])
        entry = {"from": identity, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.inbox["files"].append({**entry, "name": reader.info.name, "mimeType": reader.info.mime_type})

    async def sendText(
        self, text: str, topic: str, to: list[str] | None = None, attributes: dict | None = None
    ) -> None:
        await self.room.local_participant.send_text(
            text, topic=topic, destination_identities=to, attributes=attributes
        )

    async def sendBytes(self, base64: str, topic: str, name: str, to: list[str] | None = None) -> None:
        await self.room.local_participant.send_bytes(
            decode_base64(base64), topic=topic, name=name, destination_identities=to
        )

    async def registerRpc(self) -> None:
        async def echo(data: rtc.RpcInvocationData) -> str:
            return f"{data.caller_identity}: {data.payload}"

        async def fail(data: rtc.RpcInvocationData) -> str:
            raise rtc.RpcError(2001, "as asked", "details")

        self.room.local_participant.register_rpc_method("echo", echo)
        self.room.local_participant.register_rpc_method("fail", fail)

    async def performRpc(self, to: str, method: str, payload: str, timeoutMs: int | None = None) -> dict:
        timeout = None if timeoutMs is None else timeoutMs / 1000
        try:
            result = await self.room.local_participant.perform_rpc(
                destination_identity=to, method=method, payload=payload, response_timeout=timeout
            )
            return {"result": result}
        except rtc.RpcError as error:
            return {"error": {"code": int(error.code), "message": error.message, "data": error.data}}

    async def loopBack(self, hz: float, width: int, height: int, fps: int) -> None:
        """The harness against itself: the SDK's sources, read back without a room."""
        sound = rtc.AudioSource(media.SAMPLE_RATE, 1, queue_size_ms=200)
        ear, eye = media.AudioMeter(), media.VideoMeter()
        track = rtc.LocalAudioTrack.create_audio_track("audio", sound)
        self._task(self._play(sound, hz))
        self.meters["loop/audio"] = ("audio", track, ear, self._task(self._listen(track, ear)))
        pictures = rtc.VideoSource(width, height)
        track = rtc.LocalVideoTrack.create_video_track("video", pictures)
        self._task(self._show(pictures, width, height, fps))
        self.meters["loop/video"] = ("video", track, eye, self._task(self._look(track, eye)))

    async def selfCheck(self, hz: float) -> dict:
        """The harness against itself: meters on synthetic pictures and tones."""
        video, audio = media.VideoMeter(), media.AudioMeter()
        for counter in [0, 1, 2, 1000, 65535]:
            picture = np.frombuffer(media.paint_counter(320, 180, counter), dtype=np.uint8)
            video.frame(picture[: 320 * 180].reshape(180, 320))
        video.frame(np.full((180, 320), 128, dtype=np.uint8))
        second = media.tone(hz, 0, media.SAMPLE_RATE) / 32768
        audio.samples(second)
        audio.samples(np.zeros(BLOCKS_OF_SILENCE * media.BLOCK_SAMPLES))
        audio.samples(second)
        return {"video": video.report(), "audio": audio.report()}


BLOCKS_OF_SILENCE = 5


def decode_base64(text: str) -> bytes:
    return base64.b64decode(text)


async def answer(participant: Participant, call: dict) -> None:
    try:
        result = await getattr(participant, call["method"])(**call["params"])
        reply = {"id": call["id"], "result": result}
    except Exception as error:  # reported to the runner, which decides
        logging.exception("%s", call["method"])
        reply = {"id": call["id"], "error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


async def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    participant = Participant()
    reader = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    calls: set[asyncio.Task] = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(participant, json.loads(line)))
        calls.add(task)
        task.add_done_callback(calls.discard)
    # The runner has closed stdin: leave, and do not wait for long.
    with contextlib.suppress(Exception):
        await asyncio.wait_for(participant.room.disconnect(), timeout=5)
    for task in participant.tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
