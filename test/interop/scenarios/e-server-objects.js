// What the server keeps for others: ingress, SIP trunks and rules, dispatches, and the services that
// are not attached, with LiveKit's own server SDKs for Node and Python.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { AgentDispatchClient, EgressClient, EncodedFileOutput, IngressClient, IngressInput, SipClient } from "livekit-server-sdk";
import { API_KEY, API_SECRET } from "../harness/server.js";
import { test } from "../harness/test.js";

const PYTHON_SCRIPT = fileURLToPath(new URL("../python/server_objects.py", import.meta.url));
const run = promisify(execFile);

const client = (Kind, server) => new Kind(server.httpUrl, API_KEY, API_SECRET);
const refusedWith = (status) => (error) => error.status === status || assert.fail(`${error.status} ${error.message}`);
const ids = (list, key) => list.map((each) => each[key]).sort();

test("ingress is created, changed, listed and deleted", async (t) => {
  const ingress = client(IngressClient, await t.server("ingress: {rtmp_base_url: 'rtmp://127.0.0.1/x', whip_base_url: 'http://127.0.0.1/w'}\n"));
  const made = await ingress.createIngress(IngressInput.RTMP_INPUT, { name: "one", roomName: "room", participantIdentity: "camera" });
  assert.match(made.ingressId, /^IN_/);
  assert.ok(made.streamKey.length > 8 && made.url.startsWith("rtmp://127.0.0.1/x"), JSON.stringify(made));
  const changed = await ingress.updateIngress(made.ingressId, { name: "two", roomName: "other", participantIdentity: "camera" });
  assert.deepEqual([changed.name, changed.roomName, changed.streamKey], ["two", "other", made.streamKey]);
  assert.deepEqual(ids(await ingress.listIngress({ roomName: "other" }), "ingressId"), [made.ingressId]);
  assert.deepEqual(await ingress.listIngress({ roomName: "room" }), []);
  await ingress.deleteIngress(made.ingressId);
  assert.deepEqual(await ingress.listIngress(), []);
  await assert.rejects(ingress.deleteIngress(made.ingressId), refusedWith(404));
});

test("SIP trunks and rules are created, changed, listed and deleted", async (t) => {
  const sip = client(SipClient, await t.server());
  const inbound = await sip.createSipInboundTrunk("in", ["+15550100"], { authUsername: "u", authPassword: "p" });
  const outbound = await sip.createSipOutboundTrunk("out", "sip.example.com", ["+15550101"], { transport: 0 });
  assert.match(inbound.sipTrunkId, /^ST_/);
  const renamed = await sip.updateSipInboundTrunkFields(inbound.sipTrunkId, { name: "renamed" });
  assert.deepEqual([renamed.name, renamed.numbers], ["renamed", ["+15550100"]]);
  assert.deepEqual(ids(await sip.listSipInboundTrunk(), "sipTrunkId"), [inbound.sipTrunkId]);
  assert.deepEqual(ids(await sip.listSipOutboundTrunk(), "sipTrunkId"), [outbound.sipTrunkId]);
  await assert.rejects(sip.createSipInboundTrunk("again", ["+15550100"]), refusedWith(400));
  const rule = await sip.createSipDispatchRule({ type: "individual", roomPrefix: "call-" }, { name: "rule", trunkIds: [inbound.sipTrunkId] });
  assert.match(rule.sipDispatchRuleId, /^SDR_/);
  const moved = await sip.updateSipDispatchRuleFields(rule.sipDispatchRuleId, { rule: { rule: { case: "dispatchRuleDirect", value: { roomName: "desk", pin: "" } } } });
  assert.equal(moved.rule.rule.value.roomName, "desk");
  assert.deepEqual(ids(await sip.listSipDispatchRule(), "sipDispatchRuleId"), [rule.sipDispatchRuleId]);
  await sip.deleteSipDispatchRule(rule.sipDispatchRuleId);
  await sip.deleteSipTrunk(inbound.sipTrunkId);
  await sip.deleteSipTrunk(outbound.sipTrunkId);
  assert.deepEqual([await sip.listSipInboundTrunk(), await sip.listSipOutboundTrunk(), await sip.listSipDispatchRule()], [[], [], []]);
});

test("dispatches are created, listed and deleted, and services that are not attached say so", async (t) => {
  const server = await t.server();
  const dispatches = client(AgentDispatchClient, server);
  const made = await dispatches.createDispatch("room", "helper", { metadata: "m" });
  assert.deepEqual([made.agentName, made.room, made.metadata], ["helper", "room", "m"]);
  // A room always has one for agents without a name.
  const names = async () => (await dispatches.listDispatch("room")).map(({ agentName }) => agentName).sort();
  assert.deepEqual(await names(), ["", "helper"]);
  await dispatches.deleteDispatch(made.id, "room");
  assert.deepEqual(await names(), [""]);
  const egress = client(EgressClient, server);
  await assert.rejects(egress.startRoomCompositeEgress("room", new EncodedFileOutput({ filepath: "x.mp4" })), refusedWith(503));
  await assert.rejects(client(SipClient, server).createSipParticipant("ST_x", "+15550100", "room"), (error) => error.status >= 400);
});

test("the same with the Python SDK", async (t) => {
  const server = await t.server("ingress: {whip_base_url: 'http://127.0.0.1/w'}\n");
  const { stdout } = await run(t.options.python, [PYTHON_SCRIPT, server.httpUrl, API_KEY, API_SECRET]);
  assert.match(stdout, /^done$/m);
});
