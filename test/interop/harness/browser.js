// Chromium and its pages. Each participant is a page in a context of its own.
import { createServer } from "node:http";
import { once } from "node:events";
import { appendFileSync, readFileSync } from "node:fs";
import { chromium } from "playwright-core";

export const ROOT = new URL("..", import.meta.url);
export const FILES = {
  "/": ["page/index.html", "text/html"],
  "/participant.js": ["page/participant.js", "text/javascript"],
  "/media.js": ["page/media.js", "text/javascript"],
  "/e2ee.worker.js": ["node_modules/livekit-client/dist/livekit-client.e2ee.worker.mjs", "text/javascript"],
  "/livekit-client.js": ["node_modules/livekit-client/dist/livekit-client.esm.mjs", "text/javascript"],
};
export const FLAGS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-renderer-backgrounding",
  // Real loopback addresses instead of mDNS names, which nobody here resolves.
  "--disable-features=WebRtcHideLocalIpsWithMdns",
  "--allow-loopback-in-peer-connection",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--autoplay-policy=no-user-gesture-required",
];

// The page's files on a port of their own.
export async function serveFiles() {
  const files = createServer((request, response) => {
    const file = FILES[request.url];
    response.writeHead(file ? 200 : 404, { "content-type": file?.[1] ?? "text/plain" });
    response.end(file ? readFileSync(new URL(file[0], ROOT)) : "");
  });
  files.listen(0, "127.0.0.1");
  await once(files, "listening");
  return { files, origin: `http://127.0.0.1:${files.address().port}` };
}

export class Browser {
  static async start(executablePath) {
    const { files, origin } = await serveFiles();
    const browser = await chromium.launch({ executablePath, args: FLAGS, ignoreDefaultArgs: ["--mute-audio"] });
    return new Browser(browser, files, origin);
  }

  constructor(browser, files, origin) {
    Object.assign(this, { browser, files, origin });
  }

  async page(logPath) {
    const context = await this.browser.newContext({ permissions: ["microphone", "camera"] });
    const page = await context.newPage();
    const note = (text) => appendFileSync(logPath, `${new Date().toISOString()} ${text}\n`);
    page.on("console", (message) => note(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => note(`uncaught: ${error}`));
    await page.goto(`${this.origin}/`);
    await page.waitForFunction(() => globalThis.participant !== undefined);
    return new Page(page, context);
  }

  async stop() {
    await this.browser.close();
    this.files.close();
  }
}

// A participant in Chromium: `call` runs a method of page/participant.js.
export class Page {
  constructor(page, context) {
    this.page = page;
    this.context = context;
  }

  call(method, params = {}) {
    return this.page.evaluate(([name, args]) => globalThis.participant[name](args), [method, params]);
  }

  async stop() {
    await this.context.close();
  }
}
