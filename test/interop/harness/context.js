// What a test is given: servers and participants that end with it, and their logs.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AccessToken, RoomServiceClient } from "livekit-server-sdk";
import { Browser } from "./browser.js";
import { Firefox } from "./firefox.js";
import { ProcessParticipant } from "./process.js";
import { API_KEY, API_SECRET, Server } from "./server.js";

const PYTHON_SCRIPT = fileURLToPath(new URL("../python/participant.py", import.meta.url));
const NODE_SCRIPT = fileURLToPath(new URL("../node/participant.js", import.meta.url));
const RECORDINGS = fileURLToPath(new URL("../media", import.meta.url));

export class Context {
  constructor(options, folder) {
    this.options = options;
    this.folder = folder;
    this.open = [];
    this.notes = [];
    mkdirSync(folder, { recursive: true });
  }

  // A line under the test's name in the report: a measurement, not a verdict.
  note(text) {
    this.notes.push(text);
  }

  async server(config, options) {
    const server = await Server.start(this.options.server, this.folder, config, options);
    this.open.push(server);
    return server;
  }

  // An empty page; `options` of `join` are left to the caller.
  async page(identity) {
    this.options.browser ??= await Browser.start(this.options.chromium);
    const page = await this.options.browser.page(join(this.folder, `${identity}.log`));
    this.open.push(page);
    return page;
  }

  python(identity) {
    return this.#process(this.options.python, [PYTHON_SCRIPT], identity);
  }

  #process(command, args, identity) {
    const participant = new ProcessParticipant(command, args, join(this.folder, `${identity}.log`));
    this.open.push(participant);
    return participant;
  }

  // A participant in Chromium that has joined. `options` go to livekit-client's Room; `password` and
  // `withoutCodecs` are as in the page.
  async joinPage(server, identity, { room = "room", grant = {}, connect = {}, url = server.url, password, withoutCodecs, ...options } = {}) {
    const page = await this.page(identity);
    const token = await this.token(identity, room, grant);
    await page.call("connect", { url, token, options, connect, password, withoutCodecs });
    page.identity = identity;
    return page;
  }

  // A participant in the Python SDK that has joined. `options` go to its RoomOptions.
  async joinPython(server, identity, { room = "room", grant = {}, ...options } = {}) {
    const python = this.python(identity);
    const token = await this.token(identity, room, grant);
    await python.call("connect", { url: server.url, token, options });
    python.identity = identity;
    return python;
  }

  // A participant in the Node SDK that has joined.
  async joinNode(server, identity, { room = "room", grant = {} } = {}) {
    const node = this.#process(process.execPath, [NODE_SCRIPT], identity);
    const token = await this.token(identity, room, grant);
    await node.call("connect", { url: server.url, token });
    node.identity = identity;
    return node;
  }

  // A participant in Firefox that has joined. `options` go to livekit-client's Room.
  async joinFirefox(server, identity, { room = "room", grant = {}, ...options } = {}) {
    const firefox = await Firefox.start(this.options.firefox, this.folder);
    this.open.push(firefox);
    const page = await firefox.page(join(this.folder, `${identity}.log`));
    const token = await this.token(identity, room, grant);
    await page.call("connect", { url: server.url, token, options });
    page.identity = identity;
    return page;
  }

  // A participant with core/client (test/player) that has joined, and plays recorded encodings
  // once `play` is called.
  async joinPlayer(server, identity, { room = "room", grant = {}, url = server.url, ...options } = {}) {
    const player = this.#process(this.options.player, [], identity);
    const token = await this.token(identity, room, grant);
    await player.call("connect", { url, token, options });
    player.identity = identity;
    player.play = (what = {}) => player.call("play", { folder: RECORDINGS, microphone: true, camera: true, ...what });
    return player;
  }

  async token(identity, room, grant = {}) {
    const token = new AccessToken(API_KEY, API_SECRET, { identity, ttl: "1h" });
    token.addGrant({ room, roomJoin: true, ...grant });
    return token.toJwt();
  }

  api(server, key = API_KEY, secret = API_SECRET) {
    return new RoomServiceClient(server.httpUrl, key, secret);
  }

  // Ends what the test has opened, clients before servers, and throws the first error.
  async close() {
    const errors = [];
    for (const thing of this.open.reverse()) {
      await thing.stop().catch((error) => errors.push(error));
    }
    if (errors.length > 0) throw errors[0];
  }
}
