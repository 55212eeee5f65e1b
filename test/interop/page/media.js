// Media that can be recognised at the other end: pictures that carry a counter, and tones.
// The picture's layout is shared with python/media.py.

// A picture is a grid of black and white cells: 16 bits of the counter, then the same inverted.
const COLUMNS = 8;
const ROWS = 4;
const CELL_PIXELS = 8;
const COUNTER_BITS = 16;
// A 10 ms block below this level is silence; the tones are played at 0.3.
const SILENCE_LEVEL = 0.02;

export function paintCounter(context, width, height, counter) {
  for (let cell = 0; cell < COLUMNS * ROWS; cell += 1) {
    const bit = (counter >> cell % COUNTER_BITS) & 1;
    const white = cell < COUNTER_BITS ? bit === 1 : bit === 0;
    const [column, row] = [cell % COLUMNS, Math.floor(cell / COLUMNS)];
    const [left, top] = [Math.round((column * width) / COLUMNS), Math.round((row * height) / ROWS)];
    context.fillStyle = white ? "#fff" : "#000";
    context.fillRect(left, top, Math.ceil(width / COLUMNS), Math.ceil(height / ROWS));
  }
}

// The counter of a picture scaled to COLUMNS x ROWS cells, or null where it cannot be read.
function readCounter({ data, width }) {
  let counter = 0;
  for (let cell = 0; cell < COLUMNS * ROWS; cell += 1) {
    const left = (cell % COLUMNS) * CELL_PIXELS;
    const top = Math.floor(cell / COLUMNS) * CELL_PIXELS;
    let sum = 0;
    for (let y = top + 2; y < top + 6; y += 1) {
      for (let x = left + 2; x < left + 6; x += 1) sum += data[4 * (y * width + x) + 1];
    }
    const white = sum / 16 > 128 ? 1 : 0;
    if (cell < COUNTER_BITS) counter |= white << cell;
    else if (((counter >> cell % COUNTER_BITS) & 1) === white) return null;
  }
  return counter;
}

// A video track whose pictures count up.
export function countingTrack({ width, height, fps }) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { alpha: false });
  const [track] = canvas.captureStream(0).getVideoTracks();
  let counter = 0;
  const paint = () => {
    paintCounter(context, width, height, counter % 65536);
    counter += 1;
    track.requestFrame();
  };
  paint();
  const timer = setInterval(() => (track.readyState === "ended" ? clearInterval(timer) : paint()), 1000 / fps);
  return track;
}

let audioContext;
function audio() {
  audioContext ??= new AudioContext({ sampleRate: 48_000 });
  return audioContext;
}

export function toneTrack(hz) {
  const oscillator = new OscillatorNode(audio(), { frequency: hz });
  const gain = new GainNode(audio(), { gain: 0.3 });
  const destination = new MediaStreamAudioDestinationNode(audio(), { channelCount: 1 });
  oscillator.connect(gain).connect(destination);
  oscillator.start();
  const [track] = destination.stream.getAudioTracks();
  return Object.assign(track, { gain });
}

// Counts the pictures of a track as they are shown and reads their counters.
export class VideoMeter {
  constructor(track) {
    this.started = performance.now();
    this.firstFrameMs = null;
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, autoplay: true, playsInline: true, width: 64, height: 32 });
    this.video.srcObject = new MediaStream([track]);
    document.body.append(this.video);
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: COLUMNS * CELL_PIXELS, height: ROWS * CELL_PIXELS });
    this.context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
    this.reset();
    const onFrame = () => {
      this.#frame();
      if (!this.stopped) this.video.requestVideoFrameCallback(onFrame);
    };
    this.video.requestVideoFrameCallback(onFrame);
  }

  #frame() {
    const now = performance.now();
    this.firstFrameMs ??= now - this.started;
    this.frames += 1;
    if (this.lastFrame !== null) this.longestGapMs = Math.max(this.longestGapMs, now - this.lastFrame);
    this.lastFrame = now;
    const { width, height } = this.context.canvas;
    this.context.drawImage(this.video, 0, 0, width, height);
    const counter = readCounter(this.context.getImageData(0, 0, width, height));
    if (counter === null) {
      this.unreadable += 1;
      return;
    }
    this.first ??= counter;
    if (this.last !== null && counter < this.last) this.backwards += 1;
    this.last = counter;
    this.read += 1;
  }

  reset() {
    Object.assign(this, { frames: 0, read: 0, unreadable: 0, backwards: 0, longestGapMs: 0 });
    Object.assign(this, { first: null, last: null, lastFrame: null });
  }

  report() {
    const { frames, read, unreadable, backwards, longestGapMs, first, last, firstFrameMs } = this;
    const { videoWidth: width, videoHeight: height } = this.video;
    return { frames, read, unreadable, backwards, longestGapMs, first, last, firstFrameMs, width, height };
  }

  stop() {
    this.stopped = true;
    this.video.remove();
  }
}

const LEVELS = `registerProcessor("levels", class extends AudioWorkletProcessor {
  constructor() { super(); this.sum = 0; this.count = 0; }
  process([[channel]]) {
    if (!channel) return true;
    for (const sample of channel) {
      this.sum += sample * sample;
      if ((this.count += 1) === 480) {
        this.port.postMessage(Math.sqrt(this.sum / 480));
        this.sum = this.count = 0;
      }
    }
    return true;
  }
});`;
let levels;
function loadLevels() {
  levels ??= audio().audioWorklet.addModule(URL.createObjectURL(new Blob([LEVELS], { type: "text/javascript" })));
  return levels;
}

// Measures the tone of a track, and its silences once it was heard.
export class AudioMeter {
  constructor(track) {
    const stream = new MediaStream([track]);
    // Chromium feeds remote audio to an AudioContext only while an element plays it.
    this.element = new Audio();
    Object.assign(this.element, { muted: true, srcObject: stream });
    this.element.play().catch(() => {});
    this.source = new MediaStreamAudioSourceNode(audio(), { mediaStream: stream });
    this.analyser = new AnalyserNode(audio(), { fftSize: 32_768, smoothingTimeConstant: 0 });
    this.source.connect(this.analyser);
    this.reset();
    loadLevels().then(() => {
      this.worklet = new AudioWorkletNode(audio(), "levels");
      this.source.connect(this.worklet).connect(audio().destination);
      this.worklet.port.onmessage = ({ data }) => this.#level(data);
    });
  }

  #level(level) {
    this.level = level;
    if (level >= SILENCE_LEVEL) {
      this.heardMs += 10;
      this.gapMs = 0;
    } else if (this.heardMs > 0) {
      this.silentMs += 10;
      this.gapMs += 10;
      this.longestGapMs = Math.max(this.longestGapMs, this.gapMs);
    }
  }

  // The strongest frequency, between two bins by a parabola through their levels in dB.
  #hz() {
    const bins = new Float32Array(this.analyser.frequencyBinCount);
    this.analyser.getFloatFrequencyData(bins);
    let peak = 1;
    for (let bin = 2; bin < bins.length - 1; bin += 1) if (bins[bin] > bins[peak]) peak = bin;
    if (!(bins[peak] > -60)) return 0;
    const [left, middle, right] = [bins[peak - 1], bins[peak], bins[peak + 1]];
    const shift = (left - right) / (2 * (left - 2 * middle + right));
    return ((peak + shift) * audio().sampleRate) / this.analyser.fftSize;
  }

  reset() {
    Object.assign(this, { heardMs: 0, silentMs: 0, gapMs: 0, longestGapMs: 0, level: 0 });
  }

  report() {
    const { heardMs, silentMs, longestGapMs, level } = this;
    return { heardMs, silentMs, longestGapMs, level, hz: this.#hz() };
  }

  stop() {
    this.source.disconnect();
    this.worklet?.disconnect();
    this.element.srcObject = null;
  }
}
