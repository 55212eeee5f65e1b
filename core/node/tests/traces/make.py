#!/usr/bin/env python3
"""Makes the fixtures of this folder from recorded traces: python3 make.py <folder of traces>

Keeps joins, signal messages but the periodic ones, and data messages; drops the text of the
server's descriptions. Where the recording left a client's description out, one of the same
sections is taken from the two traces that have them all, with the ids of its tracks replaced.
"""
import gzip, json, re, sys

TRACES = ["01-single-pc-basic", "01-late-joiner", "02-dual-pc-basic", "02-mixed-pc", "05-data",
          "07-python-default", "04-signal-reconnect", "04-signal-reconnect-dual", "04-node-failure",
          "05-data-tracks"]
PERIODIC = {"ping", "ping_req", "pong", "pong_resp", "speakers_changed", "connection_quality",
            "trickle", "subscribed_quality_update", "stream_state_update", "room_update"}

def lines(name):
    return [json.loads(line) for line in open(f"{sys.argv[1]}/{name}.jsonl")]

def sections(sdp):
    parts = re.split(r"(?m)^(?=m=)", sdp)[1:]
    direction = lambda part: (re.search(r"a=(sendrecv|sendonly|recvonly|inactive)", part) or ["", "sendrecv"])[1]
    return tuple((part.split(" ")[0], direction(part), "a=simulcast" in part) for part in parts)

def summary(summaries):
    return tuple(("m=" + s["m"].split(" ")[0], s.get("dir", "sendrecv"), "simulcast" in s) for s in summaries)

def cids(sdp):
    return [(kind, m[1]) for kind, part in ((p.split(" ")[0], p) for p in re.split(r"(?m)^(?=m=)", sdp)[1:])
            for m in [re.search(r"a=msid:\S+ (\S+)", part)] if m]

templates = {}
for name in ("01-single-pc-basic", "02-dual-pc-basic"):
    for line in lines(name):
        if line["kind"] == "ws" and line["dir"] == "c2s" and line["case"] in ("offer", "answer"):
            sdp = line["msg"][line["case"]]["sdp"]
            templates.setdefault((line["case"], sections(sdp)), sdp)

# Longer traces cut it; every page of the same client sends the same but for its SDP's ids.
join_request = next(line["query"]["join_request"] for line in lines("01-single-pc-basic")
                    if line["kind"] == "ws-request")

def fill(case, description):
    if not description["sdp"].startswith("(left out"):
        return
    wanted = description.pop("sdp_summary")
    sdp = templates[(case, summary(wanted))]
    ids = [s["msid"].split(" ")[1] for s in wanted if "msid" in s]
    for (_, old), new in zip(cids(sdp), ids):
        sdp = sdp.replace(old, new)
    description["sdp"] = sdp

for name in TRACES:
    kept = []
    for line in lines(name):
        kind = line["kind"]
        if kind == "ws-request":
            query = {k: v for k, v in line["query"].items() if k != "access_token"}
            again = line.get("join_request", {}).get("join_request", {}).get("reconnect")
            if "join_request" in query and not again:
                if len(query["join_request"]) < 1000 or "..." in query["join_request"]:
                    query["join_request"] = join_request
            kept.append({"kind": kind, "conn": line["conn"], "path": line["path"], "query": query,
                         "claims": line["claims"]})
        elif kind == "ws" and line["case"] not in PERIODIC:
            message = line["msg"]
            for case in ("offer", "answer"):
                if case in message and line["dir"] == "s2c":
                    message[case].pop("sdp")
                    message[case].pop("sdp_summary", None)
                elif case in message:
                    fill(case, message[case])
            if line["case"] == "refresh_token":
                message = {"refresh_token": ""}
            kept.append({"kind": kind, "conn": line["conn"], "dir": line["dir"], "case": line["case"],
                         "msg": message})
        elif kind == "dc" and line["label"] in ("_reliable", "_lossy", "_data_track") and "raw" in line:
            kept.append({k: line[k] for k in ("kind", "client", "label", "dir", "raw")})
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in kept)
    with open(f"{name}.jsonl.gz", "wb") as out:
        out.write(gzip.compress(text.encode(), 9, mtime=0))
    print(name, len(kept))
