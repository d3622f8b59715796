// A stream as AWS's SDK for JavaScript uses it, against a server that is running:
//
//     AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any NODE_PATH=…/node_modules \
//         node kinesis.js http://127.0.0.1:8082 default|http1
//
// `default` is the SDK's own choice, HTTP/2 from the first byte on; `http1` is what many set for
// servers in a test. If CORKBOARD_OTHER_ID and CORKBOARD_OTHER_SECRET are those of a key that may only
// describe, the server asks for keys, and refuses wrong ones. Any claim that does not hold ends it.

"use strict";

const assert = require("node:assert/strict");
const kinesis = require("@aws-sdk/client-kinesis");
const { NodeHttpHandler } = require("@smithy/node-http-handler");

const [, , endpoint, protocol] = process.argv;
const HALF = (1n << 127n).toString();

const connect = (settings) =>
  new kinesis.KinesisClient({
    endpoint,
    region: "us-east-1",
    maxAttempts: 1,
    ...(protocol === "http1" && { requestHandler: new NodeHttpHandler({ requestTimeout: 20_000 }) }),
    ...settings,
  });
const client = connect({});

const ask = (name, input) => client.send(new kinesis[`${name}Command`](input));
const text = (record) => Buffer.from(record.Data).toString();

/** The records of a shard from its beginning, up to its tip or its end. */
async function read(StreamName, ShardId) {
  const records = [];
  let { ShardIterator } = await ask("GetShardIterator", { StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" });
  while (ShardIterator) {
    const answer = await ask("GetRecords", { ShardIterator });
    records.push(...answer.Records);
    if (answer.Records.length === 0 && answer.MillisBehindLatest === 0) break;
    ShardIterator = answer.NextShardIterator;
  }
  return records;
}

/** Whose signatures are taken, and for what. */
async function keys(StreamName) {
  const env = process.env;
  const own = { accessKeyId: env.AWS_ACCESS_KEY_ID, secretAccessKey: env.AWS_SECRET_ACCESS_KEY };
  const other = { accessKeyId: env.CORKBOARD_OTHER_ID, secretAccessKey: env.CORKBOARD_OTHER_SECRET };
  const put = (settings) =>
    connect(settings).send(new kinesis.PutRecordCommand({ StreamName, PartitionKey: "a", Data: Buffer.from("refused") }));
  for (const [name, credentials] of [
    ["InvalidSignatureException", { ...own, secretAccessKey: "wrong" }],
    ["InvalidSignatureException", { ...own, secretAccessKey: other.secretAccessKey }],
    ["UnrecognizedClientException", { ...own, accessKeyId: "AKIDEXAMPLE" }],
    ["AccessDeniedException", other],
  ]) {
    await assert.rejects(put({ credentials }), { name });
  }
  const looked = await connect({ credentials: other }).send(new kinesis.ListStreamsCommand({}));
  assert.ok(looked.StreamNames.includes(StreamName));
  const isLate = { name: "InvalidSignatureException", message: /Signature expired/ };
  await assert.rejects(put({ systemClockOffset: -360_000 }), isLate);
  // Clients that try again set their clock by what the answer's `Date` says.
  const late = connect({ systemClockOffset: -360_000, maxAttempts: 2 });
  assert.equal((await late.send(new kinesis.ListStreamsCommand({}))).$metadata.attempts, 2);
}

async function main() {
  const StreamName = `javascript-${protocol}-${Date.now()}`;
  await ask("CreateStream", { StreamName, ShardCount: 1 });
  await kinesis.waitUntilStreamExists({ client, maxWaitTime: 20 }, { StreamName });
  const { StreamDescriptionSummary: summary } = await ask("DescribeStreamSummary", { StreamName });
  assert.equal(summary.StreamStatus, "ACTIVE");
  if (process.env.CORKBOARD_OTHER_ID) await keys(StreamName);

  const put = await ask("PutRecord", { StreamName, PartitionKey: "a", Data: Buffer.from("hello") });
  const entries = Array.from({ length: 500 }, (_, i) => ({ PartitionKey: `k${i}`, Data: Buffer.from(`record ${i}`) }));
  const batch = await ask("PutRecords", { StreamName, Records: entries });
  assert.equal(batch.FailedRecordCount, 0);
  assert.equal(batch.Records.length, 500);

  const records = await read(StreamName, put.ShardId);
  assert.deepEqual(records.map(text), ["hello", ...entries.map(text)]);
  assert.equal(records[0].SequenceNumber, put.SequenceNumber);
  assert.ok(Math.abs(Date.now() - records[0].ApproximateArrivalTimestamp.getTime()) < 120_000, "it has just arrived");

  const { Consumer } = await ask("RegisterStreamConsumer", { StreamARN: summary.StreamARN, ConsumerName: "c" });
  const subscribed = await ask("SubscribeToShard", {
    ConsumerARN: Consumer.ConsumerARN,
    ShardId: put.ShardId,
    StartingPosition: { Type: "TRIM_HORIZON" },
  });
  const pushed = [];
  for await (const { SubscribeToShardEvent: event } of subscribed.EventStream) {
    if (pushed.length < records.length) {
      pushed.push(...event.Records);
      if (pushed.length === records.length) {
        await ask("PutRecord", { StreamName, PartitionKey: "a", Data: Buffer.from("later") });
      }
    } else if (event.Records.length > 0) {
      assert.deepEqual(event.Records.map(text), ["later"]);
      break;
    }
  }
  assert.deepEqual(pushed.map(text), records.map(text));

  await ask("SplitShard", { StreamName, ShardToSplit: put.ShardId, NewStartingHashKey: HALF });
  await kinesis.waitUntilStreamExists({ client, maxWaitTime: 20 }, { StreamName });
  const { Shards } = await ask("ListShards", { StreamName });
  assert.deepEqual(Shards.map((shard) => shard.ParentShardId), [undefined, put.ShardId, put.ShardId]);
  const child = await ask("PutRecord", { StreamName, PartitionKey: "a", Data: Buffer.from("child"), ExplicitHashKey: HALF });
  assert.equal(child.ShardId, Shards[2].ShardId);
  assert.deepEqual((await read(StreamName, child.ShardId)).map(text), ["child"]);
  assert.equal((await read(StreamName, put.ShardId)).length, records.length + 1);

  await assert.rejects(ask("PutRecord", { StreamName: "nowhere", PartitionKey: "a", Data: Buffer.from("") }), {
    name: "ResourceNotFoundException",
  });
  await ask("DeregisterStreamConsumer", { ConsumerARN: Consumer.ConsumerARN });
  await ask("DeleteStream", { StreamName });
  console.log(`JavaScript, ${client.config.requestHandler.constructor.name}: all claims hold`);
}

setTimeout(() => {
  console.error("it hangs");
  process.exit(1);
}, 60_000).unref();
main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
