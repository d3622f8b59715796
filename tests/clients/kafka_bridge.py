"""Version 2 of Kafka's REST proxy as kafka-bridge-client asks for it, a library for Confluent's proxy and
Strimzi's bridge, against a server that is running:

    python kafka_bridge.py http://127.0.0.1:8082

If CORKBOARD_KEY is set, the server asks for that key. The library's consumers bring it in a header; its
producers, who can bring none, have it in the address, as user and password.

It sends a body with every request, with a GET, too. Any claim that does not hold ends it.
"""

import asyncio
import base64
import json
import os
import sys
import time
import types

# The library takes a name from an example that some builds of Python leave out, and never uses it.
sys.modules.setdefault("xxlimited", types.SimpleNamespace(Str=str))

from kafka_bridge_client import KafkaBridgeConsumer, KafkaBridgeProducer, Message  # noqa: E402
from kafka_bridge_client import exceptions  # noqa: E402

TOPIC = f"bridge-{time.time_ns() // 1_000_000}"
GROUP = f"{TOPIC}-readers"
MAX_BYTES = 1 << 20
TIMEOUT_SECONDS = 30
N_RECORDS = 500
KEY = os.environ.get("CORKBOARD_KEY")


def check(claim, found, expected=True):
    assert found == expected, f"{claim}: {found!r}, not {expected!r}"


def producer_to(url):
    if KEY:
        url = url.replace("://", "://" + KEY.replace(".", ":") + "@")
    return KafkaBridgeProducer(url, timeout=TIMEOUT_SECONDS)


def produce(url):
    producer = producer_to(url)
    binary = [Message(key=f"k{i % 7}", value=f"record {i}".encode()) for i in range(N_RECORDS)]
    check("bytes are taken", producer.sends(TOPIC, binary, binary=True))
    check("JSON is taken", producer.send(TOPIC, Message(key=None, value="caf\u00e9")))
    try:
        producer.sends(TOPIC, [])
    except exceptions.ValidationError:
        return
    raise AssertionError("no records at all were taken")


def consumer(url, **others):
    settings = {
        "group_id": GROUP,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "bootstrap_server": url + "/",
        "consumer_name": "one",
        "proxy": "confluent",
        "sleep_interval_seconds": 0,
        "client_timeout_seconds": TIMEOUT_SECONDS,
        "headers": {"Authorization": f"Bearer {KEY}"} if KEY else {},
    }
    return KafkaBridgeConsumer(TOPIC, **(settings | others))


async def read(reader, n_records):
    """So many records, or as many as come in some questions."""
    records = []
    for _ in range(20):
        records += await reader.poll_records(max_bytes=MAX_BYTES, timeout=500)
        if len(records) >= n_records:
            break
    return records


async def consume(url):
    first = consumer(url)
    async with first:
        records = await read(first, N_RECORDS + 1)
        check("records", len(records), N_RECORDS + 1)
        values = [base64.b64decode(record["value"]) for record in records]
        check("what was sent", set(values), {b'"caf\xc3\xa9"'} | {f"record {i}".encode() for i in range(N_RECORDS)})
        for key in (f"k{i}" for i in range(7)):
            ours = [r for r in records if r["key"] == base64.b64encode(key.encode()).decode()]
            check("a key has one partition", len({r["partition"] for r in ours}), 1)
            offsets = [r["offset"] for r in ours]
            check("in order", offsets, sorted(offsets))
        await first.commit()
    # The instance is gone, what it committed is not.
    try:
        await first.poll_records(max_bytes=MAX_BYTES, timeout=100)
    except exceptions.KafkaBridgeError as error:
        check("an instance that is gone", "40403" in str(error))
    else:
        raise AssertionError("an instance that was deleted was answered")
    second = consumer(url, consumer_name="two")
    async with second:
        check("nothing comes twice", await second.poll_records(max_bytes=MAX_BYTES, timeout=200), [])
        producer_to(url).send(TOPIC, Message(key=None, value="later"))
        async for record in second.get_records(max_bytes=MAX_BYTES, timeout=1000):
            check("what came later", json.loads(base64.b64decode(record["value"])), "later")
            break
        await second.commit()


async def refused(url):
    """Who brings no key, or a wrong one."""
    try:
        KafkaBridgeProducer(url, timeout=TIMEOUT_SECONDS).send(TOPIC, Message(key=None, value="refused"))
    except exceptions.KafkaBridgeResourceException:
        pass
    else:
        raise AssertionError("a record without a key was taken")
    try:
        async with consumer(url, headers={"Authorization": f"Bearer {KEY}x"}):
            raise AssertionError("a consumer with a wrong key was made")
    except exceptions.KafkaBridgeError as error:
        check("a wrong key", "401" in str(error) and "40101" in str(error))


def main():
    url = sys.argv[1]
    if KEY:
        asyncio.run(asyncio.wait_for(refused(url), 60))
    produce(url)
    asyncio.run(asyncio.wait_for(consume(url), 60))
    print("kafka-bridge-client: all claims hold")


main()
