// Media that can be recognised at the other end: pictures that carry a counter, and tones.
// The picture's layout is shared with page/media.js and python/media.py.

const COLUMNS = 8;
const ROWS = 4;
const COUNTER_BITS = 16;
export const SAMPLE_RATE = 48_000;
export const BLOCK_SAMPLES = SAMPLE_RATE / 100;
// A 10 ms block below this level is silence; the tones are played at 0.3.
const SILENCE_LEVEL = 0.02;
const WINDOW_SAMPLES = SAMPLE_RATE / 2;
const FULL_SCALE = 32_768;

// An I420 picture: 16 bits of the counter as cells, then the same inverted.
export function counterPicture(width, height, counter) {
  const luma = width * height;
  const picture = new Uint8Array(luma + 2 * Math.ceil(width / 2) * Math.ceil(height / 2)).fill(128);
  for (let cell = 0; cell < COLUMNS * ROWS; cell += 1) {
    const bit = (counter >> cell % COUNTER_BITS) & 1;
    const white = cell < COUNTER_BITS ? bit === 1 : bit === 0;
    const [column, row] = [cell % COLUMNS, Math.floor(cell / COLUMNS)];
    const left = Math.floor((column * width) / COLUMNS);
    const right = Math.floor(((column + 1) * width) / COLUMNS);
    for (let y = Math.floor((row * height) / ROWS); y < Math.floor(((row + 1) * height) / ROWS); y += 1) {
      picture.fill(white ? 235 : 16, y * width + left, y * width + right);
    }
  }
  return picture;
}

// The counter of a picture's luma, or null where it cannot be read.
function readCounter(luma, width, height) {
  let counter = 0;
  for (let cell = 0; cell < COLUMNS * ROWS; cell += 1) {
    const [column, row] = [cell % COLUMNS, Math.floor(cell / COLUMNS)];
    const x = Math.floor(((2 * column + 1) * width) / (2 * COLUMNS));
    const y = Math.floor(((2 * row + 1) * height) / (2 * ROWS));
    let sum = 0;
    for (let dy = -2; dy < 2; dy += 1) for (let dx = -2; dx < 2; dx += 1) sum += luma[(y + dy) * width + x + dx];
    const white = sum / 16 > 128 ? 1 : 0;
    if (cell < COUNTER_BITS) counter |= white << cell;
    else if (((counter >> cell % COUNTER_BITS) & 1) === white) return null;
  }
  return counter;
}

// A block of a sine, continuous from block to block.
export function tone(hz, first) {
  const at = (index) => 0.3 * (FULL_SCALE - 1) * Math.sin((2 * Math.PI * hz * (first + index)) / SAMPLE_RATE);
  return Int16Array.from({ length: BLOCK_SAMPLES }, (_, index) => at(index));
}

export class VideoMeter {
  constructor() {
    this.started = performance.now();
    this.firstFrameMs = null;
    this.reset();
  }

  reset() {
    Object.assign(this, { frames: 0, read: 0, unreadable: 0, backwards: 0, first: null, last: null });
  }

  frame(luma, width, height) {
    this.firstFrameMs ??= performance.now() - this.started;
    Object.assign(this, { width, height });
    this.frames += 1;
    const counter = readCounter(luma, width, height);
    if (counter === null) {
      this.unreadable += 1;
      return;
    }
    this.first ??= counter;
    if (this.last !== null && counter < this.last) this.backwards += 1;
    this.last = counter;
    this.read += 1;
  }

  report() {
    const { frames, read, unreadable, backwards, first, last, firstFrameMs, width, height } = this;
    return { frames, read, unreadable, backwards, first, last, firstFrameMs, width, height };
  }
}

export class AudioMeter {
  constructor() {
    this.reset();
  }

  reset() {
    Object.assign(this, { heardMs: 0, level: 0, window: [] });
  }

  samples(samples) {
    for (const sample of samples) this.window.push(sample / FULL_SCALE);
    if (this.window.length > WINDOW_SAMPLES) this.window = this.window.slice(-WINDOW_SAMPLES);
    const squares = samples.reduce((sum, sample) => sum + (sample / FULL_SCALE) ** 2, 0);
    this.level = Math.sqrt(squares / Math.max(samples.length, 1));
    if (this.level >= SILENCE_LEVEL) this.heardMs += (1000 * samples.length) / SAMPLE_RATE;
  }

  // By the rising zero crossings of half a second, which is exact for a sine.
  hz() {
    if (this.window.length < WINDOW_SAMPLES || this.level < SILENCE_LEVEL) return 0;
    const crossings = [];
    for (let index = 1; index < this.window.length; index += 1) {
      const [before, now] = [this.window[index - 1], this.window[index]];
      if (before < 0 && now >= 0) crossings.push(index - now / (now - before));
    }
    const span = crossings.at(-1) - crossings[0];
    return crossings.length < 2 ? 0 : ((crossings.length - 1) * SAMPLE_RATE) / span;
  }

  report() {
    return { heardMs: this.heardMs, level: this.level, hz: this.hz() };
  }
}
