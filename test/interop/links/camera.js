// A moving picture that costs bits: a texture that pans, and grain that is new in each frame.
import { closeSync, existsSync, mkdirSync, openSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";

const [WIDTH, HEIGHT, FPS, FRAMES] = [1280, 720, 30, 60];
const MARGIN = 64;
const GRAIN = 10;

// Numbers that look random and are the same each time.
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

function texture(width, height) {
  const draw = random(1);
  const luma = new Float32Array(width * height).fill(128);
  for (const [cell, height_] of [[160, 50], [40, 30], [10, 18]]) {
    const columns = Math.ceil(width / cell) + 2;
    const grid = Float32Array.from({ length: columns * (Math.ceil(height / cell) + 2) }, () => draw() - 0.5);
    for (let y = 0; y < height; y += 1) {
      const [row, v] = [Math.floor(y / cell), (y % cell) / cell];
      for (let x = 0; x < width; x += 1) {
        const [column, u] = [Math.floor(x / cell), (x % cell) / cell];
        const at = row * columns + column;
        const upper = grid[at] * (1 - u) + grid[at + 1] * u;
        const lower = grid[at + columns] * (1 - u) + grid[at + columns + 1] * u;
        luma[y * width + x] += height_ * 2 * (upper * (1 - v) + lower * v);
      }
    }
  }
  return luma;
}

// Writes the picture as YUV4MPEG2, once.
export function makeCamera(path) {
  if (existsSync(path)) return path;
  mkdirSync(dirname(path), { recursive: true });
  const [width, height] = [WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN];
  const wide = texture(width, height);
  const draw = random(2);
  const grain = Int8Array.from({ length: 1 << 20 }, () => (draw() - 0.5) * 2 * GRAIN);
  const file = openSync(`${path}.new`, "w");
  writeSync(file, `YUV4MPEG2 W${WIDTH} H${HEIGHT} F${FPS}:1 Ip A1:1 C420jpeg\n`);
  const frame = Buffer.alloc((WIDTH * HEIGHT * 3) / 2, 128);
  for (let n = 0; n < FRAMES; n += 1) {
    const angle = (2 * Math.PI * n) / FRAMES;
    const left = Math.round(MARGIN * (1 + Math.sin(angle)));
    const top = Math.round(MARGIN * (1 + Math.cos(angle)));
    const shift = Math.floor(draw() * grain.length);
    for (let y = 0; y < HEIGHT; y += 1) {
      const row = (y + top) * width + left;
      for (let x = 0; x < WIDTH; x += 1) {
        frame[y * WIDTH + x] = wide[row + x] + grain[(shift + y * WIDTH + x) & (grain.length - 1)];
      }
    }
    writeSync(file, "FRAME\n");
    writeSync(file, frame);
  }
  closeSync(file);
  renameSync(`${path}.new`, path);
  return path;
}
