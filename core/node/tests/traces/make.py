#!/usr/bin/env python3
"""Makes the fixtures of this folder from recorded traces: python3 make.py <folder of traces>

Keeps joins, signal messages but the periodic ones, and data messages; drops the text of the
server's descriptions. Where the recording left a client's description out, one of the same
sections is taken from the two traces that have them all, with the ids of its tracks replaced; where
there is none, it is put together from sections of others.
"""
import gzip, json, re, sys

TRACES = ["01-single-pc-basic", "01-late-joiner", "02-dual-pc-basic", "02-mixed-pc", "05-data",
          "07-python-default", "04-signal-reconnect", "04-signal-reconnect-dual", "04-node-failure",
          "05-data-tracks"]
# Those in which it matters when something is said: their lines keep their time, and what is wanted
# of a track is kept too.
TIMED = ["03-audio-red-stereo", "03-av1-svc", "03-backup-codec", "03-e2ee", "03-h264-simulcast",
         "03-many-tracks", "03-screen-share", "03-vp8-no-simulcast", "03-vp9-svc",
         "04-subscriber-bandwidth", "06-adaptive-stream", "06-dynacast", "06-dynacast-no-subscriber",
         "06-mute-by-api", "06-speakers-quality", "06-stream-pause-dual", "06-stream-pause-single",
         "06-subscription-permissions", "06-subscriptions"]
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

# Sections of clients' descriptions by kind, direction and whether they are simulcast.
parts = {}
heads = {}
for name in ("01-single-pc-basic", "01-late-joiner", "02-dual-pc-basic", *[t for t in TIMED if t < "04"]):
    for line in lines(name):
        if line["kind"] == "ws" and line["dir"] == "c2s" and line["case"] in ("offer", "answer"):
            sdp = line["msg"][line["case"]]["sdp"]
            if sdp.startswith("v="):
                heads.setdefault((line["case"], "dual" in name), sdp[:sdp.index("m=")])
                for part, key in zip(re.split(r"(?m)^(?=m=)", sdp)[1:], sections(sdp)):
                    parts.setdefault(key, part)

def section(wanted, index):
    """The section that the summary tells of, made from another of its kind."""
    (key,) = summary([wanted])
    part = parts[key]
    part = re.sub(r"(?m)^a=mid:.*$", f"a=mid:{wanted['mid']}\r", part)
    part = re.sub(r"(?m)^a=ice-ufrag:.*$", f"a=ice-ufrag:{wanted['ufrag']}\r", part)
    old = re.search(r"a=msid:\S+ (\S+)", part)
    if old and "msid" in wanted:
        part = part.replace(old[1], wanted["msid"].split(" ")[1])
    # No two sections of a description have an SSRC in common.
    for ssrc in set(re.findall(r"(?m)^a=ssrc:(\d+)", part)):
        part = re.sub(rf"\b{ssrc}\b", str(int(ssrc) // 100 * 100 + index), part)
    types = wanted["m"].split(" ")[3:]
    listed = lambda line: (m := re.match(r"a=(?:rtpmap|fmtp|rtcp-fb):(\d+)", line)) is None or m[1] in types
    kept = [line for line in part.split("\r\n")[1:] if listed(line)]
    return "\r\n".join(["m=" + wanted["m"], *kept])

def compose(case, wanted, is_pair):
    head = heads[(case, is_pair)]
    mids = " ".join(s["mid"] for s in wanted if s.get("dir") != "rejected")
    head = re.sub(r"(?m)^a=group:BUNDLE.*$", f"a=group:BUNDLE {mids}\r", head)
    return head + "".join(section(s, index) for index, s in enumerate(wanted))

# Longer traces cut it; every page of the same client sends the same but for its SDP's ids.
join_request = next(line["query"]["join_request"] for line in lines("01-single-pc-basic")
                    if line["kind"] == "ws-request")

def fill(case, description, is_pair, is_timed):
    if not description["sdp"].startswith("(left out"):
        return
    wanted = description.pop("sdp_summary")
    takes_less = is_timed and any(s["m"].startswith("video") and " 45 " not in s["m"] for s in wanted)
    if takes_less or (case, summary(wanted)) not in templates:
        description["sdp"] = compose(case, wanted, is_pair)
        return
    sdp = templates[(case, summary(wanted))]
    ids = [s["msid"].split(" ")[1] for s in wanted if "msid" in s]
    for (_, old), new in zip(cids(sdp), ids):
        sdp = sdp.replace(old, new)
    description["sdp"] = sdp

for name in TRACES + TIMED:
    kept = []
    is_pair = "dual" in name
    periodic = PERIODIC - {"subscribed_quality_update", "stream_state_update"} if name in TIMED else PERIODIC
    for line in lines(name):
        kind = line["kind"]
        before = len(kept)
        if kind == "ws-request":
            query = {k: v for k, v in line["query"].items() if k != "access_token"}
            again = line.get("join_request", {}).get("join_request", {}).get("reconnect")
            if "join_request" in query and not again:
                if len(query["join_request"]) < 1000 or "..." in query["join_request"]:
                    query["join_request"] = join_request
            kept.append({"kind": kind, "conn": line["conn"], "path": line["path"], "query": query,
                         "claims": line["claims"]})
            said = line.get("join_request", {}).get("join_request", {})
            if name in TIMED and said:
                kept[-1]["capabilities"] = said["client_info"].get("capabilities", [])
                kept[-1]["settings"] = said["connection_settings"]
                offer = said.get("publisher_offer")
                if offer and "sdp_summary" in offer:
                    fill("offer", offer, is_pair, True)
                    kept[-1]["publisher_offer"] = offer["sdp"]
        elif kind == "ws" and line["case"] not in periodic:
            message = line["msg"]
            for case in ("offer", "answer"):
                if case in message and line["dir"] == "s2c":
                    message[case].pop("sdp")
                    message[case].pop("sdp_summary", None)
                elif case in message:
                    fill(case, message[case], is_pair, name in TIMED)
            if line["case"] == "refresh_token":
                message = {"refresh_token": ""}
            kept.append({"kind": kind, "conn": line["conn"], "dir": line["dir"], "case": line["case"],
                         "msg": message})
        elif kind == "dc" and line["label"] in ("_reliable", "_lossy", "_data_track") and "raw" in line:
            kept.append({k: line[k] for k in ("kind", "client", "label", "dir", "raw")})
        elif kind == "http" and name in TIMED:
            request = line["request"]
            kept.append({"kind": kind, "method": request["path"].split("/")[-1], "body": request["body"]})
        if name in TIMED and len(kept) > before:
            kept[-1]["t"] = line["t"]
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in kept)
    with open(f"{name}.jsonl.gz", "wb") as out:
        out.write(gzip.compress(text.encode(), 9, mtime=0))
    print(name, len(kept))
