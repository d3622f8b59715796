"""What no schema says: what is there already (check.py made it), names that have to be new, values that a
setting of the server bounds, and how Amazon's media types are written."""

import itertools
import json
import os

import cbor2
import schemathesis
from schemathesis.core.parameters import ParameterLocation

N_CASES = itertools.count()
CLUSTER, ITERATOR = os.environ["CORKBOARD_CLUSTER"], os.environ["CORKBOARD_ITERATOR"]
GIVEN = {"cluster": CLUSTER, "topic": "given", "stream": "given", "partition": 0, "group": "given", "instance": "given"}
# Of this one nobody changes what it reads: `instance` is not what version 3 calls it.
GIVEN["consumer"] = "kept"
OF_A_STREAM = ("getStreamsStream", "getStreamsStreamSharditerator", "putStreamsStreamRecord", "putStreamsStreamRecords")
MAX_PARTITIONS = 8
MAX_ENTRIES = 10


@schemathesis.hook
def before_load_schema(context, raw_schema):
    # Whether a key is asked for is a setting; the document says that both may be.
    if "CORKBOARD_KEY" in os.environ:
        raw_schema["security"] = [{"apiKey": []}]


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None:
        return
    n, operation = next(N_CASES), case.operation.definition.raw["operationId"]
    is_told = case.meta.phase.name.value == "stateful"
    if operation == "deleteConsumersGroupInstancesInstanceSubscription":
        # Nobody else needs what this one has.
        if not is_told and is_right(case, ParameterLocation.PATH):
            case.path_parameters.update(group="given", instance="subscriber")
    elif case.method == "DELETE":
        # Others need it.
        case.path_parameters.update({k: f"{n}-gone" for k, name in case.path_parameters.items() if name == "given"})
    elif not is_told:
        ask_for_what_is_there(case, n)
    if case.meta.generation.mode.is_positive:
        make_acceptable(case, operation, n, is_told)


def is_right(case, location):
    component = case.meta.components.get(location)
    return component is None or component.mode.is_positive


def ask_for_what_is_there(case, n):
    if case.path_parameters and is_right(case, ParameterLocation.PATH):
        others = {"cluster": CLUSTER} if n % 4 == 3 else GIVEN
        case.path_parameters.update({name: others[name] for name in case.path_parameters if name in others})
    if "shard-id" in (case.query or {}) and is_right(case, ParameterLocation.QUERY):
        case.query["shard-id"] = "shardId-000000000000"
        case.path_parameters["stream"] = "given"
    if "Shard-Iterator" in (case.headers or {}) and is_right(case, ParameterLocation.HEADER):
        case.headers["Shard-Iterator"] = ITERATOR
        case.path_parameters["stream"] = "given"


def make_acceptable(case, operation, n, is_told):
    key = (case.headers or {}).get("Idempotency-Key")
    if key:
        # With one key, two bodies would rightly be refused.
        quote = '"' if key.startswith('"') else ""
        case.headers["Idempotency-Key"] = f"{quote}{n}-{key.strip(chr(34))}"[: 255 + len(quote)] + quote
    if operation in OF_A_STREAM and not is_told:
        # Kinesis has no 404: it says with 400 that there is no such stream.
        case.path_parameters["stream"] = "given"
    if operation == "postStreamsStream":
        case.path_parameters["stream"] = f"{n}-{case.path_parameters['stream']}"[:128]
    body = case.body
    if not isinstance(body, dict):
        return
    body.update(without_point(body))
    if operation == "postV3ClustersClusterTopics":
        body["topic_name"] = f"{n}-{body['topic_name']}"[:249]
        fewer(body, "partitions_count")
        # A setting can only be asked for as it is.
        for setting in body.get("configs", []):
            setting["value"] = None
        if is_told:
            # What was not made would be missed.
            body.pop("validate_only", None)
        if not body.get("partitions_count"):
            body.pop("replicas_assignments", None)
    elif operation == "postStreamsStream":
        fewer(body, "ShardCount")
    elif operation == "postV3ClustersClusterTopicsTopicRecordsBatch":
        del body["entries"][MAX_ENTRIES:]
        for i, entry in enumerate(body["entries"]):
            entry["id"] = f"{i}{entry['id']}"[:80]
    elif operation == "putStreamsStreamRecord":
        shorter(body, "PartitionKey")
    elif operation == "putStreamsStreamRecords":
        for record in body["records"]:
            shorter(record, "partition-key")


def without_point(value):
    """With a point, whole numbers are only taken as far as every parser reads them exactly."""
    if isinstance(value, dict):
        return {name: without_point(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_point(part) for part in value]
    return int(value) if isinstance(value, float) and 2**50 < abs(value) < 2**63 else value


def fewer(body, field):
    if isinstance(body.get(field), (int, float)):
        body[field] = min(body[field], MAX_PARTITIONS)


def shorter(record, key):
    """A key that is no text is taken as its JSON, which has to be as short as a text."""
    if not isinstance(record[key], str) and len(json.dumps(record[key])) > 256:
        record[key] = 0


@schemathesis.serializer("application/x-amz-json-1.1")
def to_amazon_json(context, value):
    return json.dumps(value).encode()


@schemathesis.deserializer("application/x-amz-json-1.1")
def of_amazon_json(context, response):
    # An action without an answer has none.
    return json.loads(response.content or b"{}")


@schemathesis.serializer("application/x-amz-cbor-1.1")
def to_amazon_cbor(context, value):
    return cbor2.dumps(value)


@schemathesis.deserializer("application/x-amz-cbor-1.1")
def of_amazon_cbor(context, response):
    return cbor2.loads(response.content) if response.content else {}


@schemathesis.deserializer("application/vnd.apache.arrow.stream")
def of_arrow(context, response):
    # Tables are read elsewhere; here it is enough that it is a stream: it begins with this mark.
    assert response.content[:4] == b"\xff\xff\xff\xff", "no stream of Arrow"
    return {}
