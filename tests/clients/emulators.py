"""What the public emulators of posts send, with `requests` as they do, against a server that is running:

    python emulators.py http://127.0.0.1:8082

If CORKBOARD_KEY and CORKBOARD_OTHER_KEY are keys, the second of which may only describe, the server asks for
them, as a gateway does with a usage plan.

Each `post_…` is one program's way to write the same row: its paths, its headers, its envelope, its
dates. What was stored is read back over HTTP and compared to the byte where the programs rely on it.
"""

import base64
import datetime
import json
import os
import sys
import time
import uuid

import requests

USER_ID = f"{time.time_ns() // 1_000_000:012x}"
TIMEOUT = (3, 30)
N_CHECKS = 0

# As PyMySQL returns them, with what makes trouble in published rows.
PIN = {
    "index": 7528,
    "unique_id": "fbe53c66-3442-4773-b19e-d3ec6f54dddf",
    "title": "No Title Data Available",
    "description": "Caf\u00e9 \U0001f600 \u2026\u00a0",
    "poster_name": "User Info Error | {caf\u00e9}\n",
    "follower_count": "124k",
    "tag_list": "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e",
    "is_image_or_video": "multi-video(story page format)",
    "image_src": "Image src error.",
    "downloaded": 0,
    "save_location": "Local save in /data/mens-fashion",
    "category": "mens-fashion",
}
GEO = {
    "ind": 7528,
    "timestamp": datetime.datetime(2020, 8, 28, 3, 52, 47),
    "latitude": -89.9787,
    "longitude": -173.293,
    "country": "Cote d'Ivoire",
}
USER = {
    "ind": 7528,
    "first_name": "Abigail",
    "last_name": "Ali",
    "age": 20,
    "date_joined": datetime.datetime(2015, 10, 24, 11, 23, 51),
}
ROWS = {"pin": PIN, "geo": GEO, "user": USER}

KEY = os.environ.get("CORKBOARD_KEY")
KAFKA_JSON = {"Content-Type": "application/vnd.kafka.json.v2+json"}
JSON = {"Content-Type": "application/json"}


def check(claim, found, expected=True):
    global N_CHECKS
    N_CHECKS += 1
    assert found == expected, f"{claim}: {found!r}, not {expected!r}"


def ask(method, url, headers=None, key=KEY, **more):
    headers = (headers or {}) | ({"x-api-key": key} if key else {})
    return requests.request(method, url, headers=headers, timeout=TIMEOUT, **more)


def with_colons(value):
    return value.strftime("%Y:%m:%d %H:%M:%S")


def with_t(value):
    return value.isoformat()


# The dates of each program, and what it puts around a row, for Kafka and for Kinesis.
PROGRAMS = {
    "colons": (with_colons, lambda row: row, lambda row: row),
    "arrays": (with_t, lambda row: [row], lambda row: [row]),
    "wrapped": (with_t, lambda row: row, lambda row: {"value": row}),
    "strings": (str, lambda row: row, lambda row: row),
    "twice": (str, lambda row: row, lambda row: base64.b64encode(json.dumps(row).encode()).decode()),
}
PARTITION_KEYS = {
    "colons": lambda table: "partition-1",
    "arrays": lambda table: str(uuid.uuid4()),
    "wrapped": lambda table: f"partition-{table}",
    "strings": lambda table: table,
    "twice": lambda table: "desired-name",
}
# The gateway's stages, and the proxy without a gateway before it.
STAGES = {"colons": "", "arrays": "/Test", "wrapped": "/dev", "strings": "/prod", "twice": "/test"}


def row_as_sent(program, table):
    """The row after the program's JSON."""
    dates, _, _ = PROGRAMS[program]
    return json.loads(json.dumps(ROWS[table], default=dates))


def post_to_kafka(url, program, table):
    dates, wrap, _ = PROGRAMS[program]
    payload = json.dumps({"records": [{"value": wrap(ROWS[table])}]}, default=dates)
    invoke_url = f"{url}{STAGES[program]}/topics/{USER_ID}.{table}"
    response = ask("POST", invoke_url, headers=KAFKA_JSON, data=payload)
    check(f"{program} to {invoke_url}", response.status_code, 200)
    answer = response.json()
    offset = answer["offsets"][0]
    check("its answer", answer, {
        "offsets": [{"partition": offset["partition"], "offset": offset["offset"], "error_code": None, "error": None}],
        "key_schema_id": None,
        "value_schema_id": None,
    })


def read_from_kafka(url, topic):
    """As one reads through the gateway: a consumer, a subscription, and records asked for until they come."""
    of_group = f"{url}/test/consumers/students-{uuid.uuid4()}"
    headers = {"Content-Type": "application/vnd.kafka.v2+json"}
    created = ask("POST", of_group, headers=headers, data=json.dumps(
        {"name": "reader", "format": "json", "auto.offset.reset": "earliest"}))
    check("a consumer", created.status_code, 200)
    instance = f"{of_group}/instances/{created.json()['instance_id']}"
    subscribed = ask("POST", f"{instance}/subscription", headers=headers, data=json.dumps({"topics": [topic]}))
    check("a subscription", subscribed.status_code, 204)
    records, n_empty = [], 0
    while n_empty < (1 if records else 20):
        response = ask("GET", f"{instance}/records", headers={"Accept": "application/vnd.kafka.json.v2+json"})
        check("records", response.status_code, 200)
        records += response.json()
        n_empty += not response.json()
    check("the end", ask("DELETE", instance, headers=headers).status_code, 204)
    return [record["value"] for record in records]


def kafka(url):
    for table in ROWS:
        expected = []
        for program, (_, wrap, _) in PROGRAMS.items():
            post_to_kafka(url, program, table)
            expected.append(wrap(row_as_sent(program, table)))
        found = read_from_kafka(url, f"{USER_ID}.{table}")
        order = lambda value: json.dumps(value, sort_keys=True)
        check(f"what is in {table}", sorted(found, key=order), sorted(expected, key=order))
        key_order = [list(row) for row in found if isinstance(row, dict)]
        check("the order of columns", key_order, [list(ROWS[table])] * len(key_order))
    bare = ask("POST", f"{url}/test/topics/{USER_ID}.pin", headers=KAFKA_JSON, data=json.dumps(PIN))
    check("without the envelope", (bare.status_code, bare.json()["error_code"]), (422, 422))
    check("it names the field", "index" in bare.json()["message"])


def post_to_kinesis(url, program, table, stream):
    dates, _, wrap = PROGRAMS[program]
    name = {"colons": "{self.stream_name}", "twice": [1]}.get(program, stream)
    data = wrap(json.loads(json.dumps(ROWS[table], default=dates)))
    key = PARTITION_KEYS[program](table)
    payload = json.dumps({"StreamName": name, "Data": data, "PartitionKey": key})
    invoke_url = f"{url}{STAGES[program]}/streams/{stream}/record"
    response = ask("PUT", invoke_url, headers=JSON, data=payload)
    check(f"{program} to {invoke_url}", (response.status_code, response.text), (200, response.text))
    check("a receipt", sorted(response.json())[-2:], ["SequenceNumber", "ShardId"])
    check("its number", response.json()["SequenceNumber"].isdecimal())
    # What the gateway's template stores: the JSON text of `Data`.
    return key, json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def read_from_kinesis(url, stream):
    described = ask("GET", f"{url}/test/streams/{stream}").json()["StreamDescription"]
    found = []
    for shard in described["Shards"]:
        iterator = ask("GET", f"{url}/test/streams/{stream}/sharditerator", params={"shard-id": shard["ShardId"]})
        token = iterator.json()["ShardIterator"]
        while True:
            page = ask("GET", f"{url}/test/streams/{stream}/records", headers={"Shard-Iterator": token}).json()
            found += [(record["PartitionKey"], base64.b64decode(record["Data"])) for record in page["Records"]]
            token = page["NextShardIterator"]
            if not page["Records"] and page["MillisBehindLatest"] == 0:
                break
    return found


def kinesis(url):
    for table in ROWS:
        stream = f"streaming-{USER_ID}-{table}"
        created = ask("POST", f"{url}/test/streams/{stream}", headers=JSON, data=json.dumps({"ShardCount": 2}))
        check("a stream is made", (created.status_code, created.text), (200, created.text))
        check("it is listed", stream in ask("GET", f"{url}/test/streams").json()["StreamNames"])
        expected = [post_to_kinesis(url, program, table, stream) for program in PROGRAMS]
        batch = [{"data": json.dumps(row_as_sent("strings", table)), "partition-key": f"k{i}"} for i in range(10)]
        put = ask("PUT", f"{url}/test/streams/{stream}/records", headers=JSON, data=json.dumps({"records": batch}))
        check("a batch", (put.status_code, put.json().get("FailedRecordCount")), (200, 0))
        expected += [(entry["partition-key"], entry["data"].encode()) for entry in batch]
        check(f"what is in {stream}", sorted(read_from_kinesis(url, stream)), sorted(expected))
        check("it is deleted", ask("DELETE", f"{url}/test/streams/{stream}").status_code, 200)
    unknown = ask("PUT", f"{url}/test/streams/nowhere-{USER_ID}/record", headers=JSON,
                  data=json.dumps({"StreamName": "x", "Data": {}, "PartitionKey": "p"}))
    check("a stream that is not there", (unknown.status_code, unknown.json()["__type"]), (400, "ResourceNotFoundException"))


def fastapi(url):
    fields = ["category", "index", "unique_id", "title", "description", "poster_name", "follower_count", "tag_list",
              "is_image_or_video", "image_src", "downloaded", "save_location"]
    before = len(read_from_kafka(url, "Pinterest_data")) if "Pinterest_data" in topics(url) else 0
    for path in ["/pin/", "/pin"]:
        response = ask("POST", f"{url}{path}", json=PIN)
        check(f"a pin to {path}", (response.status_code, response.json()), (200, PIN))
        check("echoed in the model's order", list(response.json()), fields)
    wrong = ask("POST", f"{url}/pin/", json={k: v for k, v in PIN.items() if k != "title"})
    check("a field is missing", (wrong.status_code, wrong.json()["detail"][0]["loc"]), (422, ["body", "title"]))
    stored = read_from_kafka(url, "Pinterest_data")
    check("they are stored", stored[before:], [PIN, PIN])


def topics(url):
    return ask("GET", f"{url}/test/topics").json()


def keys(url):
    """What a gateway says, and what the proxy says behind it, to whom it does not let in."""
    other = os.environ["CORKBOARD_OTHER_KEY"]
    for path, status, words in [
        ("/test/topics/mine.pin", 403, "Forbidden"),
        ("/topics/mine.pin", 401, "Authentication failed"),
        ("/pin/", 401, "Authentication failed"),
    ]:
        for key in [None, KEY + "x", KEY.split(".")[0] + "." + other.split(".")[1]]:
            response = ask("POST", f"{url}{path}", key=key, json={"records": [{"value": PIN}]})
            check(f"{path} with a wrong key", (response.status_code, words in response.text), (status, True))
        response = ask("POST", f"{url}{path}", key=other, json={"records": [{"value": PIN}]})
        check(f"{path} with a key that may not", response.status_code, 403)
    put = ask("PUT", f"{url}/test/streams/mine/record", key=other, json={"PartitionKey": "p", "Data": PIN})
    check("a key that may not put", (put.status_code, put.json()), (403, {"message": "Forbidden"}))
    check("nothing was made", "mine.pin" in topics(url), False)
    check("a key that may look", ask("GET", f"{url}/test/topics", key=other).json(), topics(url))


def main(url):
    if KEY:
        keys(url)
    kafka(url)
    kinesis(url)
    fastapi(url)
    print(f"emulators: {N_CHECKS} checks passed")


if __name__ == "__main__":
    main(sys.argv[1])
