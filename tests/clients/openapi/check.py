"""What /openapi.json says, and what the server that says it does: schemathesis makes up requests, right
and wrong, by the document, and compares the answers with it. Against a server that is running:

    python check.py http://127.0.0.1:8082 [FURTHER ARGUMENTS OF `schemathesis run`]

What is checked, and what is not and why, stands in schemathesis.toml. Ends with 1 at any difference. If
CORKBOARD_KEY is the key of a server that asks for one, it is checked that every operation does.
"""

import os
import pathlib
import sys
import time

import requests

HERE = pathlib.Path(__file__).resolve().parent
KAFKA = {"Content-Type": "application/vnd.kafka.v2+json"}
TIMEOUT = (3, 30)
PIN = {"index": 1, "unique_id": "fbe53c66-3442-4773-b19e-d3ec6f54dddf", "category": "art", "follower_count": "1k"}


KEY = os.environ.get("CORKBOARD_KEY")


def ask(method, url, headers=None, **more):
    headers = (headers or {}) | ({"x-api-key": KEY} if KEY else {})
    answer = requests.request(method, url, timeout=TIMEOUT, headers=headers, **more)
    assert answer.ok, f"{method} {url}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def prepare(url):
    """A topic with records, which is a stream, too, and readers of it, of which one is behind."""
    cluster = ask("GET", f"{url}/v3/clusters")["data"][0]["cluster_id"]
    ask("POST", f"{url}/v3/clusters/{cluster}/topics", json={"topic_name": "given", "partitions_count": 4})
    records = [{"value": {"n": i}, "partition": i % 4} for i in range(100)]
    ask("POST", f"{url}/topics/given", json={"records": records})
    reader = {"format": "json", "auto.offset.reset": "earliest", "consumer.request.timeout.ms": 20}
    partitions = {"partitions": [{"topic": "given", "partition": 0}]}
    for name in ["given", "kept", "subscriber"]:
        ask("POST", f"{url}/consumers/given", json=reader | {"name": name}, headers=KAFKA)
        instance = f"{url}/consumers/given/instances/{name}"
        if name != "subscriber":
            ask("POST", f"{instance}/assignments", json=partitions, headers=KAFKA)
    instance = f"{url}/consumers/given/instances/given"
    offsets = {"offsets": [{"topic": "given", "partition": 0, "offset": 3}]}
    ask("POST", f"{instance}/offsets", json=offsets, headers=KAFKA)
    make_batch_views(url)
    shard = {"shard-id": "shardId-000000000000"}
    iterator = ask("GET", f"{url}/streams/given/sharditerator", params=shard)["ShardIterator"]
    return {"CORKBOARD_CLUSTER": cluster, "CORKBOARD_ITERATOR": iterator}


def make_batch_views(url):
    """They are there once the batch layer ran over some posts (and landing has brought it some)."""
    ask("POST", f"{url}/topics/given.pin", json={"records": [{"value": PIN}]})
    view = f"{url}/api/views/posts_per_category?scope=batch"
    for _ in range(100):
        ask("POST", f"{url}/api/tasks/batch/run")
        time.sleep(0.3)
        if requests.get(view, timeout=TIMEOUT, headers={"x-api-key": KEY}).ok:
            return
    raise AssertionError(f"{view} is never there")


def main():
    url, further = sys.argv[1], sys.argv[2:]
    os.environ.update(prepare(url), SCHEMATHESIS_HOOKS=str(HERE / "hooks.py"))
    schemathesis = pathlib.Path(sys.executable).with_name("schemathesis")
    command = [str(schemathesis), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/openapi.json"]
    if KEY:
        # Whether each operation asks for the key: the rest is the same with it.
        command += ["--header", f"x-api-key: {KEY}", "--checks", "ignored_auth", "--phases", "coverage", "--mode", "positive"]
        command += ["--warnings", "off"]
    os.execv(schemathesis, command + further)


main()
