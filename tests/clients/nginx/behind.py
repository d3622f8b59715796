"""What could get lost between nginx and the doors, with `requests`, against both while they run:

    CORKBOARD_KEY=… python behind.py http://127.0.0.1:80 http://127.0.0.1:8082

The first is nginx as in corkboard.conf, the second the server behind it, which takes bodies of 16 MiB and
holds no more than that. Any claim that does not hold ends it.
"""

import json
import os
import socket
import sys
import threading
import time
import urllib.parse
import uuid

import requests

BY, DIRECTLY = sys.argv[1], sys.argv[2]
KEY = os.environ["CORKBOARD_KEY"]
TOPIC = f"nginx-{uuid.uuid4().hex[:12]}"
MAX_BYTES = 16 << 20
RECORD = {"records": [{"value": {"n": 1}}]}
V2 = {"Content-Type": "application/vnd.kafka.v2+json"}
N_CHECKS = 0


def check(claim, found, expected=True):
    global N_CHECKS
    N_CHECKS += 1
    assert found == expected, f"{claim}: {found!r}, not {expected!r}"


def session(key=KEY):
    kept = requests.Session()
    kept.headers["x-api-key"] = key
    return kept


ASK = session()


def ask(method, path, **more):
    return ASK.request(method, BY + path, timeout=(3, 30), **more)


def connections_are_kept():
    """Refusals of bodies that nobody reads leave neither connection useless for the next request."""
    body = json.dumps(RECORD | {"padding": "x" * 60_000})
    stranger = session("nobody.s")
    for _ in range(20):
        check("stored", ask("POST", f"/topics/{TOPIC}", json=RECORD).status_code, 200)
        refused = stranger.post(f"{BY}/topics/{TOPIC}", data=body, timeout=(3, 30))
        check("a stranger", (refused.status_code, refused.json()["error_code"]), (401, 40101))
        refused = ask("POST", f"/topics/{TOPIC}", data=body, headers={"Content-Type": "text/html"})
        check("no JSON", (refused.status_code, refused.json()["error_code"]), (415, 415))
        check("nothing there", ask("POST", "/nowhere", data=body).status_code, 404)
        check("sent on", ask("POST", "/pin", data=body, allow_redirects=False).status_code, 307)


def what_does_not_fit():
    for _ in range(3):
        refused = ask("POST", f"/topics/{TOPIC}", data=b" " * (MAX_BYTES + 1), headers={"Content-Type": "application/json"})
        check("too large", (refused.status_code, refused.json()["error_code"]), (413, 413))
    address = urllib.parse.urlsplit(DIRECTLY)
    with socket.create_connection((address.hostname, address.port)) as greedy:
        head = f"POST /topics/{TOPIC} HTTP/1.1\r\nHost: a\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
        greedy.sendall(f"{head}Content-Length: {MAX_BYTES}\r\n\r\n".encode() + b" " * (MAX_BYTES - 1))
        refused = until("refused", lambda answer: answer.status_code != 200)
        check("no room", (refused.status_code, refused.json()["error_code"]), (503, 503))
        check("when to come again", refused.headers["Retry-After"], "1")
    until("stored again", lambda answer: answer.status_code == 200)


def until(claim, is_so):
    for _ in range(1000):
        answer = ask("POST", f"/topics/{TOPIC}", json=RECORD)
        if is_so(answer):
            return answer
    raise AssertionError(f"{claim}: never")


def no_request_hides_in_another():
    """What nginx and the server could count in two ways reaches no door as a second request."""
    address = urllib.parse.urlsplit(BY)
    of = lambda topic: f"POST /topics/{topic} HTTP/1.1\r\nHost: {address.netloc}\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
    body = json.dumps(RECORD)
    hidden = f"{of(TOPIC + '-hidden')}Content-Length: {len(body)}\r\n\r\n{body}"
    for fields in [
        f"Content-Length: {len(hidden) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"Transfer-Encoding: chunked\r\nContent-Length: {len(hidden) + 5}\r\n\r\n0\r\n\r\n",
        f"Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n\r\n",
        "Content-Length: +0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        f"Content-Length : {len(hidden)}\r\n\r\n",
        f"X: a\r\n Content-Length: {len(hidden)}\r\n\r\n",
    ]:
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(f"{of(TOPIC)}{fields}{hidden}".encode())
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        check(f"hidden behind {fields!r}", f"{TOPIC}-hidden" in ask("GET", "/topics").json(), False)


def records_in_a_stream():
    cluster = ask("GET", "/v3/clusters").json()["data"][0]
    link = cluster["topics"]["related"]
    check("links lead here", link.startswith(f"{BY}/v3/clusters/"))
    records = (json.dumps({"value": {"type": "JSON", "data": n}}).encode() for n in range(300))
    receipts = ASK.post(f"{link}/{TOPIC}/records", data=records, headers={"Content-Type": "application/json"}, timeout=(3, 30))
    codes = [json.loads(receipt)["error_code"] for receipt in receipts.text.split("\r\n") if receipt]
    check("a receipt for each", codes, [200] * 300)


def long_polls():
    made = ask("POST", f"/consumers/{TOPIC}", headers=V2, json={"name": "one", "format": "json", "auto.offset.reset": "latest",
                                                              "consumer.request.timeout.ms": 20_000})
    instance = made.json()["base_uri"]
    check("a consumer", instance, f"{BY}/consumers/{TOPIC}/instances/one")
    instance = instance[len(BY):]
    check("subscribed", ask("POST", f"{instance}/subscription", headers=V2, json={"topics": [TOPIC]}).status_code, 204)
    check("nothing yet", ask("GET", f"{instance}/records?timeout=500").json(), [])
    began, found = time.monotonic(), []
    waits = threading.Thread(target=lambda: found.extend(session().get(f"{BY}{instance}/records?timeout=20000").json()))
    waits.start()
    check("one more", ask("POST", f"/topics/{TOPIC}", json={"records": [{"value": "awaited"}]}).status_code, 200)
    waits.join()
    check("as soon as it is there", [record["value"] for record in found], ["awaited"])
    check("not when the time is over", time.monotonic() - began < 10)
    check("the end", ask("DELETE", instance, headers=V2).status_code, 204)


def paths():
    for path in ["/events", "/events/prod", "/prod"]:
        check(f"stored by {path}", ask("POST", f"{path}/topics/{TOPIC}", json=RECORD).status_code, 200)
        check(f"seen by {path}", TOPIC in ask("GET", f"{path}/topics").json())
        check(f"put by {path}", ask("PUT", f"{path}/streams/{TOPIC}/record", json={"PartitionKey": "a", "Data": 1}).status_code, 200)
    stranger = session("nobody.s").get(f"{BY}/events/prod/topics")
    check("the gateway's words", (stranger.status_code, stranger.json()), (403, {"message": "Forbidden"}))
    escaped = ask("GET", f"/topics/{TOPIC}%2F..%2F{TOPIC}")
    check("an escape stays one", (escaped.status_code, escaped.json()["error_code"]), (404, 40401))


connections_are_kept()
what_does_not_fit()
no_request_hides_in_another()
records_in_a_stream()
long_polls()
paths()
print(f"behind nginx: {N_CHECKS} checks passed")
