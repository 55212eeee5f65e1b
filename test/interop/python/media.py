"""Media that can be recognised at the other end: pictures that carry a counter, and tones.

The picture's layout is shared with page/media.js.
"""

import time

import numpy as np

COLUMNS = 8
ROWS = 4
COUNTER_BITS = 16
SAMPLE_RATE = 48_000
BLOCK_SAMPLES = SAMPLE_RATE // 100
# A 10 ms block below this level is silence; the tones are played at 0.3.
SILENCE_LEVEL = 0.02
# What the frequency is measured over.
WINDOW_SAMPLES = SAMPLE_RATE // 2


def paint_counter(width: int, height: int, counter: int) -> bytes:
    """An I420 picture: 16 bits of the counter as cells, then the same inverted."""
    luma = np.empty((height, width), dtype=np.uint8)
    for cell in range(COLUMNS * ROWS):
        bit = (counter >> (cell % COUNTER_BITS)) & 1
        white = bit == 1 if cell < COUNTER_BITS else bit == 0
        column, row = cell % COLUMNS, cell // COLUMNS
        top, bottom = row * height // ROWS, (row + 1) * height // ROWS
        left, right = column * width // COLUMNS, (column + 1) * width // COLUMNS
        luma[top:bottom, left:right] = 235 if white else 16
    return luma.tobytes() + bytes([128]) * (((width + 1) // 2) * ((height + 1) // 2) * 2)


def read_counter(luma: np.ndarray) -> int | None:
    """The counter of a picture, or None where it cannot be read."""
    height, width = luma.shape
    counter = 0
    for cell in range(COLUMNS * ROWS):
        column, row = cell % COLUMNS, cell // COLUMNS
        y, x = (2 * row + 1) * height // (2 * ROWS), (2 * column + 1) * width // (2 * COLUMNS)
        dy, dx = max(height // ROWS // 4, 1), max(width // COLUMNS // 4, 1)
        white = int(luma[y - dy : y + dy, x - dx : x + dx].mean() > 128)
        if cell < COUNTER_BITS:
            counter |= white << cell
        elif (counter >> (cell % COUNTER_BITS)) & 1 == white:
            return None
    return counter


def tone(hz: float, first_sample: int, samples: int) -> np.ndarray:
    """A sine of 16-bit samples, continuous from block to block."""
    at = (first_sample + np.arange(samples)) / SAMPLE_RATE
    return (0.3 * 32767 * np.sin(2 * np.pi * hz * at)).astype(np.int16)


class VideoMeter:
    """Counts pictures as they come and reads their counters."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.first_frame_ms: float | None = None
        self.width = self.height = 0
        self.reset()

    def reset(self) -> None:
        self.frames = self.read = self.unreadable = self.backwards = 0
        self.first: int | None = None
        self.last: int | None = None
        self.last_frame: float | None = None
        self.longest_gap_ms = 0.0

    def frame(self, luma: np.ndarray) -> None:
        now = time.monotonic()
        if self.first_frame_ms is None:
            self.first_frame_ms = (now - self.started) * 1000
        if self.last_frame is not None:
            self.longest_gap_ms = max(self.longest_gap_ms, (now - self.last_frame) * 1000)
        self.last_frame = now
        self.frames += 1
        self.height, self.width = luma.shape
        counter = read_counter(luma)
        if counter is None:
            self.unreadable += 1
            return
        self.first = counter if self.first is None else self.first
        self.backwards += self.last is not None and counter < self.last
        self.last = counter
        self.read += 1

    def report(self) -> dict:
        return {
            "frames": self.frames,
            "read": self.read,
            "unreadable": self.unreadable,
            "backwards": self.backwards,
            "longestGapMs": self.longest_gap_ms,
            "first": self.first,
            "last": self.last,
            "firstFrameMs": self.first_frame_ms,
            "width": self.width,
            "height": self.height,
        }


class AudioMeter:
    """Measures the tone of a track, and its silences once it was heard."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.heard_ms = self.silent_ms = self.gap_ms = self.longest_gap_ms = 0
        self.level = 0.0
        self.window = np.zeros(0)
        self.rest = np.zeros(0)

    def samples(self, samples: np.ndarray) -> None:
        """Takes mono samples at SAMPLE_RATE between -1 and 1."""
        self.window = np.concatenate([self.window, samples])[-WINDOW_SAMPLES:]
        self.rest = np.concatenate([self.rest, samples])
        while len(self.rest) >= BLOCK_SAMPLES:
            block, self.rest = self.rest[:BLOCK_SAMPLES], self.rest[BLOCK_SAMPLES:]
            self._block(float(np.sqrt(np.mean(block**2))))

    def _block(self, level: float) -> None:
        self.level = level
        if level >= SILENCE_LEVEL:
            self.heard_ms += 10
            self.gap_ms = 0
        elif self.heard_ms > 0:
            self.silent_ms += 10
            self.gap_ms += 10
            self.longest_gap_ms = max(self.longest_gap_ms, self.gap_ms)

    def hz(self) -> float:
        """The strongest frequency, between two bins by a parabola through their levels in dB."""
        if len(self.window) < WINDOW_SAMPLES or np.sqrt(np.mean(self.window**2)) < SILENCE_LEVEL:
            return 0.0
        levels = np.abs(np.fft.rfft(self.window * np.hanning(len(self.window))))
        decibel = 20 * np.log10(levels + 1e-9)
        peak = int(np.argmax(decibel[1:-1])) + 1
        left, middle, right = decibel[peak - 1 : peak + 2]
        shift = (left - right) / (2 * (left - 2 * middle + right))
        return float((peak + shift) * SAMPLE_RATE / len(self.window))

    def report(self) -> dict:
        return {
            "heardMs": self.heard_ms,
            "silentMs": self.silent_ms,
            "longestGapMs": self.longest_gap_ms,
            "level": self.level,
            "hz": self.hz(),
        }
