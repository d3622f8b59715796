"""Every action of the Kinesis door, as boto3 asks for it, against a server that is running:

    AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any python kinesis_boto3.py http://127.0.0.1:8082

Needs boto3 alone. Makes streams of its own, deletes them, and says how many checks it made. If
CORKBOARD_OTHER_ID and CORKBOARD_OTHER_SECRET are those of a key that may only describe, the server asks for
keys, and refuses wrong ones.
"""

import datetime
import hashlib
import os
import sys
import time
from unittest import mock

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

HALF = 1 << 127
N_CHECKS = 0


def check(claim, found, expected=True):
    global N_CHECKS
    N_CHECKS += 1
    assert found == expected, f"{claim}: {found!r}, not {expected!r}"


def refused(claim, code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        check(claim, error.response["Error"]["Code"], code)
        return error.response["Error"]["Message"]
    raise AssertionError(f"{claim}: was not refused")


def client(url, **credentials):
    config = Config(retries={"max_attempts": 1}, read_timeout=30)
    return boto3.client("kinesis", endpoint_url=url, region_name="eu-west-3", config=config, **credentials)


def with_key(url, key_id, secret):
    return client(url, aws_access_key_id=key_id, aws_secret_access_key=secret)


def shards(kinesis, name, **more):
    found, token = [], None
    while True:
        page = kinesis.list_shards(NextToken=token) if token else kinesis.list_shards(StreamName=name, **more)
        found += page["Shards"]
        token = page.get("NextToken")
        if not token:
            return found


def iterator(kinesis, name, shard, kind="TRIM_HORIZON", **more):
    return kinesis.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType=kind, **more)["ShardIterator"]


def read_on(kinesis, token):
    """All records from an iterator on, and the answer at the tip or at the end of the shard."""
    records = []
    while True:
        answer = kinesis.get_records(ShardIterator=token)
        records += answer["Records"]
        token = answer.get("NextShardIterator")
        if not token or (answer["MillisBehindLatest"] == 0 and not answer["Records"]):
            return records, answer


def streams(kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=2, Tags={"made": "here"})
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    refused("a stream is made once", "ResourceInUseException", kinesis.create_stream, StreamName=name, ShardCount=1)
    described = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    arn = described["StreamARN"]
    check("the ARN has the caller's region", arn, f"arn:aws:kinesis:eu-west-3:000000000000:stream/{name}")
    check("the circle is shared", int(described["Shards"][1]["HashKeyRange"]["StartingHashKey"]), HALF)
    check("it is new", abs(time.time() - described["StreamCreationTimestamp"].timestamp()) < 60)
    summary = kinesis.describe_stream_summary(StreamARN=arn)["StreamDescriptionSummary"]
    check("open shards", summary["OpenShardCount"], 2)
    names = [n for page in kinesis.get_paginator("list_streams").paginate() for n in page["StreamNames"]]
    check("it is listed", name in names)
    check("limits are told", kinesis.describe_limits()["OpenShardCount"] >= 2)
    kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=48)
    kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=48)
    kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=24)
    refused("not below a day", "InvalidArgumentException", kinesis.decrease_stream_retention_period,
            StreamName=name, RetentionPeriodHours=23)
    kinesis.add_tags_to_stream(StreamName=name, Tags={"a": "1"})
    kinesis.tag_resource(ResourceARN=arn, Tags={"b": "2"})
    kinesis.remove_tags_from_stream(StreamName=name, TagKeys=["a"])
    tags = {"made": "here", "b": "2"}
    check("tags", {t["Key"]: t["Value"] for t in kinesis.list_tags_for_stream(StreamName=name)["Tags"]}, tags)
    check("and again", {t["Key"]: t["Value"] for t in kinesis.list_tags_for_resource(ResourceARN=arn)["Tags"]}, tags)
    kinesis.untag_resource(ResourceARN=arn, TagKeys=["b", "made"])
    kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    metrics = kinesis.enable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["ALL"])
    check("metrics", len(metrics["DesiredShardLevelMetrics"]), 7)
    kinesis.disable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["ALL"])
    return arn


def puts(kinesis, name):
    key = "partition-1"
    put = kinesis.put_record(StreamName=name, PartitionKey=key, Data=b"\x00\xff binary")
    check("the key's shard", put["ShardId"], "shardId-000000000001")
    later = kinesis.put_record(StreamName=name, PartitionKey=key, Data=b"", SequenceNumberForOrdering=put["SequenceNumber"])
    check("numbers grow", int(later["SequenceNumber"]) > int(put["SequenceNumber"]))
    explicit = kinesis.put_record(StreamName=name, PartitionKey=key, Data=b"x", ExplicitHashKey="0")
    check("the explicit key's shard", explicit["ShardId"], "shardId-000000000000")
    entries = [{"PartitionKey": f"k{i}", "Data": f"d{i}".encode()} for i in range(500)]
    answer = kinesis.put_records(StreamName=name, Records=entries)
    check("all are stored", (answer["FailedRecordCount"], len(answer["Records"])), (0, 500))
    for entry, receipt in zip(entries, answer["Records"]):
        above = int.from_bytes(hashlib.md5(entry["PartitionKey"].encode()).digest(), "big") >= HALF
        check("a shard by MD5", receipt["ShardId"], f"shardId-{int(above):012}")
    refused("no more than 500", "ValidationException", kinesis.put_records, StreamName=name,
            Records=entries + [{"PartitionKey": "k", "Data": b""}])
    refused("not above the stream's limit", "InvalidArgumentException", kinesis.put_record, StreamName=name,
            PartitionKey="k", Data=b"x" * (1 << 20))
    message = refused("a stream that is not there", "ResourceNotFoundException", kinesis.put_record,
                      StreamName=name + "-none", PartitionKey="k", Data=b"")
    check("in its words", message, f"Stream {name}-none under account 000000000000 not found.")
    refused("no such hash key", "InvalidArgumentException", kinesis.put_record, StreamName=name, PartitionKey="k",
            Data=b"", ExplicitHashKey=str(1 << 128))
    refused("no such number", "InvalidArgumentException", kinesis.put_record, StreamName=name, PartitionKey="k",
            Data=b"", SequenceNumberForOrdering="12")
    return [entry["Data"] for entry in entries] + [b"\x00\xff binary", b"", b"x"]


def reads(kinesis, name, put):
    found = []
    for shard in shards(kinesis, name):
        records, answer = read_on(kinesis, iterator(kinesis, name, shard["ShardId"]))
        check("at the tip", (answer["MillisBehindLatest"], "NextShardIterator" in answer), (0, True))
        found += [record["Data"] for record in records]
        numbers = [int(record["SequenceNumber"]) for record in records]
        check("numbers grow", numbers, sorted(set(numbers)))
        at = records[len(records) // 2]
        number, shard = at["SequenceNumber"], shard["ShardId"]
        after = read_on(kinesis, iterator(kinesis, name, shard, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=number))[0]
        same = read_on(kinesis, iterator(kinesis, name, shard, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=number))[0]
        check("at a number and after it", same, [at] + after)
        check("nothing is later than the latest", read_on(kinesis, iterator(kinesis, name, shard, "LATEST"))[0], [])
        of_time = iterator(kinesis, name, shard, "AT_TIMESTAMP", Timestamp=records[0]["ApproximateArrivalTimestamp"])
        check("from a time on", read_on(kinesis, of_time)[0], records)
        check("that is now", abs(time.time() - records[0]["ApproximateArrivalTimestamp"].timestamp()) < 120)
        page = kinesis.get_records(ShardIterator=iterator(kinesis, name, shard), Limit=3)
        check("a page", page["Records"], records[:3])
    check("all that was put is read", sorted(found), sorted(put))
    refused("garbage", "InvalidArgumentException", kinesis.get_records, ShardIterator="AAAA")
    refused("no such shard", "ResourceNotFoundException", iterator, kinesis=kinesis, name=name, shard="shardId-000000000099")
    refused("the future", "InvalidArgumentException", iterator, kinesis=kinesis, name=name, shard="shardId-000000000000",
            kind="AT_TIMESTAMP", Timestamp=time.time() + 3600)


def resharding(kinesis, name):
    parent = "shardId-000000000000"
    tip = iterator(kinesis, name, parent, "LATEST")
    kinesis.split_shard(StreamName=name, ShardToSplit=parent, NewStartingHashKey=str(HALF // 2))
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    answer = kinesis.get_records(ShardIterator=tip)
    check("drained", "NextShardIterator" in answer, False)
    check("children", [c["ShardId"][-1] for c in answer["ChildShards"]], ["2", "3"])
    put = kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"child", ExplicitHashKey="0")
    check("the child takes records", put["ShardId"], "shardId-000000000002")
    kinesis.merge_shards(StreamName=name, ShardToMerge="shardId-000000000002", AdjacentShardToMerge="shardId-000000000003")
    check("open ones", [s["ShardId"][-1] for s in shards(kinesis, name, ShardFilter={"Type": "AT_LATEST"})], ["1", "4"])
    refused("once only", "InvalidArgumentException", kinesis.merge_shards, StreamName=name,
            ShardToMerge="shardId-000000000002", AdjacentShardToMerge="shardId-000000000003")
    refused("inside the shard", "InvalidArgumentException", kinesis.split_shard, StreamName=name,
            ShardToSplit="shardId-000000000001", NewStartingHashKey="5")
    updated = kinesis.update_shard_count(StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    check("counts", (updated["CurrentShardCount"], updated["TargetShardCount"]), (2, 4))
    refused("at most twice as many", "InvalidArgumentException", kinesis.update_shard_count, StreamName=name,
            TargetShardCount=9, ScalingType="UNIFORM_SCALING")
    every = shards(kinesis, name)
    check("in pages, too", [s["ShardId"] for s in shards(kinesis, name, MaxResults=2)], [s["ShardId"] for s in every])
    check("four are open", sum("EndingSequenceNumber" not in s["SequenceNumberRange"] for s in every), 4)
    data = [r["Data"] for s in every for r in read_on(kinesis, iterator(kinesis, name, s["ShardId"]))[0]]
    check("the child's record is there", b"child" in data)
    return len(data)


def subscriptions(kinesis, arn, name):
    kinesis.create_stream(StreamName=name, ShardCount=1)
    arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    shard = "shardId-000000000000"
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"0")
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c")["Consumer"]
    refused("once", "ResourceInUseException", kinesis.register_stream_consumer, StreamARN=arn, ConsumerName="c")
    described = kinesis.describe_stream_consumer(ConsumerARN=consumer["ConsumerARN"])["ConsumerDescription"]
    check("active", described["ConsumerStatus"], "ACTIVE")
    check("listed", len(kinesis.list_stream_consumers(StreamARN=arn)["Consumers"]), 1)
    subscribed = kinesis.subscribe_to_shard(
        ConsumerARN=consumer["ConsumerARN"], ShardId=shard, StartingPosition={"Type": "TRIM_HORIZON"}
    )
    events = iter(subscribed["EventStream"])
    event = next(events)["SubscribeToShardEvent"]
    check("pushed", [record["Data"] for record in event["Records"]], [b"0"])
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"1")
    event = next(events)["SubscribeToShardEvent"]
    check("pushed as it comes", [record["Data"] for record in event["Records"]], [b"1"])
    continuation = event["ContinuationSequenceNumber"]
    subscribed["EventStream"].close()
    kinesis.put_record(StreamName=name, PartitionKey="k", Data=b"2")
    kinesis.split_shard(StreamName=name, ShardToSplit=shard, NewStartingHashKey=str(HALF))
    again = kinesis.subscribe_to_shard(
        ConsumerARN=consumer["ConsumerARN"],
        ShardId=shard,
        StartingPosition={"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": continuation},
    )
    events = [event["SubscribeToShardEvent"] for event in again["EventStream"]]
    check("gone on with", [r["Data"] for event in events for r in event["Records"]], [b"2"])
    check("to the end", [child["ShardId"][-1] for child in events[-1]["ChildShards"]], ["1", "2"])
    refused("has a consumer", "ResourceInUseException", kinesis.delete_stream, StreamName=name)
    kinesis.deregister_stream_consumer(ConsumerARN=consumer["ConsumerARN"])
    refused("gone", "ResourceNotFoundException", kinesis.subscribe_to_shard, ConsumerARN=consumer["ConsumerARN"],
            ShardId=shard, StartingPosition={"Type": "LATEST"})
    kinesis.delete_stream(StreamName=name)


def keys(url, name):
    own, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    other, others_secret = os.environ["CORKBOARD_OTHER_ID"], os.environ["CORKBOARD_OTHER_SECRET"]
    put = {"StreamName": name, "PartitionKey": "k", "Data": b"refused"}
    for claim, code, key_id, secret_of_it in [
        ("a wrong secret", "InvalidSignatureException", own, "wrong"),
        ("another's secret", "InvalidSignatureException", own, others_secret),
        ("an id that nobody has", "UnrecognizedClientException", "CORK" + "A" * 16, secret),
        ("a key that may not", "AccessDeniedException", other, others_secret),
    ]:
        message = refused(claim, code, with_key(url, key_id, secret_of_it).put_record, **put)
        check("no secret is said", secret in message or others_secret in message, False)
    looks = with_key(url, other, others_secret)
    check("may look", looks.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamName"], name)
    refused("may not look into it", "AccessDeniedException", iterator, kinesis=looks, name=name, shard="shardId-000000000000")
    for minutes, words in [(-6, "Signature expired"), (6, "Signature not yet current"), (-4, None), (4, None)]:
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)
        with mock.patch("botocore.auth.get_current_datetime", lambda *_: now.replace(tzinfo=None)):
            if words is None:
                client(url).list_streams()
            else:
                message = refused(f"{minutes} minutes", "InvalidSignatureException", client(url).put_record, **put)
                check("which clock", words in message)


def main(url):
    kinesis = client(url)
    name = f"boto3-{time.time_ns() // 1_000_000}"
    arn = streams(kinesis, name)
    if "CORKBOARD_OTHER_ID" in os.environ:
        keys(url, name)
    put = puts(kinesis, name)
    reads(kinesis, name, put)
    check("nothing is lost by resharding", resharding(kinesis, name), len(put) + 1)
    subscriptions(kinesis, arn, name + "-pushed")
    kinesis.delete_stream(StreamName=name)
    kinesis.get_waiter("stream_not_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    refused("deleted", "ResourceNotFoundException", kinesis.describe_stream, StreamName=name)
    print(f"{N_CHECKS} checks passed")


if __name__ == "__main__":
    main(sys.argv[1])
