// Two network namespaces with one link between them, and what is wrong with that link.
//
// Everything is made here and removed by `close`; no route leads out of the namespaces.
import { execFileSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const SERVER_IP = "10.213.0.1";
const CLIENT_IP = "10.213.0.2";
// Of the subscriber's end; who sends there sends to the relay.
export const RELAY_IP = "10.213.9.1";
// Enough for a few packets, and little against the depth of the queue.
const BURST_BYTES = 3000;
const QUEUE_MS = 200;

const command = (name, ...args) => execFileSync(name, args, { stdio: ["ignore", "pipe", "pipe"] }).toString();
const ip = (...args) => command("ip", ...args);

export class Net {
  // `isHosted`: the server is not ours and runs in this very namespace, at SERVER_IP.
  constructor({ isHosted = false } = {}) {
    this.client = `parlor-links-${process.pid}-c`;
    this.server = isHosted ? null : `parlor-links-${process.pid}-s`;
    this.near = `pl${process.pid}s`;
    try {
      ip("netns", "add", this.client);
      if (this.server) ip("netns", "add", this.server);
      ip("link", "add", this.near, "type", "veth", "peer", "name", "eth0", "netns", this.client);
      if (this.server) ip("link", "set", this.near, "netns", this.server);
      const ends = [[this.server, this.near, SERVER_IP], [this.client, "eth0", CLIENT_IP]];
      for (const [space, device, address] of ends) {
        const at = space ? ["-n", space] : [];
        if (space) ip(...at, "link", "set", "lo", "up");
        ip(...at, "address", "add", `${address}/24`, "dev", device);
        // What leaves at once is lost packet by packet, as on a real link.
        ip(...at, "link", "set", device, "gso_max_segs", "1");
        ip(...at, "link", "set", device, "up");
        if (space) ip(...at, "route", "add", "default", "dev", device);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  addRelay() {
    ip("-n", this.client, "address", "add", `${RELAY_IP}/32`, "dev", "lo");
  }

  // How to start something in a namespace.
  inside(space) {
    return space ? ["ip", "netns", "exec", space] : [];
  }

  // An executable that starts `path` in a namespace, ahead of what else runs on this machine.
  wrapper(folder, name, space, path, nice) {
    const file = join(folder, name);
    writeFileSync(file, `#!/bin/sh\nexec ${this.inside(space).join(" ")} nice -n ${nice} ${path} "$@"\n`);
    chmodSync(file, 0o755);
    return file;
  }

  // Capacity towards the subscriber in kbit/s; null for an open link.
  rate(kbps) {
    const at = ["qdisc", kbps === null ? "del" : "replace", "dev", this.near, "root"];
    const how = kbps === null ? [] : ["tbf", "rate", `${kbps}kbit`, "burst", String(BURST_BYTES), "latency", `${QUEUE_MS}ms`];
    if (kbps !== null || this.isShaped) command(...this.inside(this.server), "tc", ...at, ...how);
    this.isShaped = kbps !== null;
  }

  // Share of the datagrams to the subscriber (or, `up`, to the server) that are lost, in percent.
  loss(percent, { up = false } = {}) {
    const [space, device] = up ? [this.server, this.near] : [this.client, "eth0"];
    const rule = percent ? `iifname "${device}" meta l4proto udp numgen random mod 100 < ${percent} drop\n` : "";
    const chain = `chain input {\n type filter hook input priority 0;\n ${rule} }\n`;
    const rules = `table inet parlor_links\ndelete table inet parlor_links\ntable inet parlor_links {\n ${chain}}\n`;
    const [program, ...args] = [...this.inside(space), "nft", "-f", "-"];
    execFileSync(program, args, { input: rules, stdio: ["pipe", "pipe", "pipe"] });
  }

  close() {
    const quietly = (act) => {
      try {
        act();
      } catch {
        // It was not made, or is gone.
      }
    };
    if (!this.server) quietly(() => ip("link", "del", this.near));
    for (const space of [this.client, this.server].filter(Boolean)) quietly(() => ip("netns", "del", space));
  }
}
