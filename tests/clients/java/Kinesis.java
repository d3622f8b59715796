// A stream as AWS's SDK for Java uses it, against a server that is running:
//
//     AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any \
//         java -cp 'jars/*' Kinesis.java http://127.0.0.1:8082 default|http1
//
// It speaks CBOR. `default` is the SDK's own choice, HTTP/2 from the first byte on. If CORKBOARD_OTHER_ID
// and CORKBOARD_OTHER_SECRET are those of a key that may only describe, the server asks for keys, and
// refuses wrong ones. Any claim that does not hold ends it.

import java.math.BigInteger;
import java.net.URI;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisClient;
import software.amazon.awssdk.services.kinesis.model.KinesisException;
import software.amazon.awssdk.services.kinesis.model.PutRecordsRequestEntry;
import software.amazon.awssdk.services.kinesis.model.Record;
import software.amazon.awssdk.services.kinesis.model.ResourceNotFoundException;
import software.amazon.awssdk.services.kinesis.model.ShardIteratorType;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardEvent;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardResponseHandler;

public class Kinesis {
  static final String HALF = BigInteger.ONE.shiftLeft(127).toString();

  final KinesisAsyncClient client;
  final String stream;

  Kinesis(KinesisAsyncClient client, String stream) {
    this.client = client;
    this.stream = stream;
  }

  static void check(String claim, Object found, Object expected) {
    if (!found.equals(expected)) {
      throw new AssertionError(claim + ": " + found + ", not " + expected);
    }
  }

  static List<String> texts(List<Record> records) {
    return records.stream().map(record -> record.data().asUtf8String()).toList();
  }

  void untilActive() throws Exception {
    client.waiter().waitUntilStreamExists(r -> r.streamName(stream)).get(20, TimeUnit.SECONDS);
  }

  /** The records of a shard from its beginning, up to its tip or its end. */
  List<Record> read(String shard) throws Exception {
    var records = new ArrayList<Record>();
    var iterator = client.getShardIterator(r -> r.streamName(stream).shardId(shard)
        .shardIteratorType(ShardIteratorType.TRIM_HORIZON)).get().shardIterator();
    while (iterator != null) {
      var at = iterator;
      var answer = client.getRecords(r -> r.shardIterator(at)).get();
      records.addAll(answer.records());
      if (answer.records().isEmpty() && answer.millisBehindLatest() == 0) {
        break;
      }
      iterator = answer.nextShardIterator();
    }
    return records;
  }

  /** What is there is pushed, and then what comes. */
  void subscribe(String arn, String shard, List<String> expected) throws Exception {
    var consumer = client.registerStreamConsumer(r -> r.streamARN(arn).consumerName("c")).get().consumer();
    var pushed = new ArrayList<String>();
    var allThere = new CompletableFuture<Void>();
    var later = new CompletableFuture<Void>();
    var handler = SubscribeToShardResponseHandler.builder()
        .onError(error -> {
          allThere.completeExceptionally(error);
          later.completeExceptionally(error);
        })
        .subscriber(event -> {
          pushed.addAll(texts(((SubscribeToShardEvent) event).records()));
          if (pushed.size() >= expected.size()) {
            allThere.complete(null);
          }
          if (pushed.size() > expected.size()) {
            later.complete(null);
          }
        }).build();
    var subscribed = client.subscribeToShard(r -> r.consumerARN(consumer.consumerARN()).shardId(shard)
        .startingPosition(p -> p.type(ShardIteratorType.TRIM_HORIZON)), handler);
    allThere.get(20, TimeUnit.SECONDS);
    put("later");
    later.get(20, TimeUnit.SECONDS);
    subscribed.cancel(true);
    check("pushed", pushed.subList(0, expected.size()), expected);
    check("pushed as it comes", pushed.subList(expected.size(), pushed.size()), List.of("later"));
    client.deregisterStreamConsumer(r -> r.consumerARN(consumer.consumerARN())).get();
  }

  /** The client that waits for each answer, on HTTP/1.1. */
  static KinesisClient waiting(URI endpoint, String id, String secret) {
    return KinesisClient.builder().endpointOverride(endpoint).region(Region.US_EAST_1)
        .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create(id, secret)))
        .overrideConfiguration(o -> o.apiCallTimeout(Duration.ofSeconds(20)).retryStrategy(r -> r.maxAttempts(1)))
        .build();
  }

  /** Reads with it, and tries keys that are wrong, or may not, where they are asked for. */
  void wait(URI endpoint, String shard, int records) {
    var env = System.getenv();
    var own = env.get("AWS_ACCESS_KEY_ID");
    var secret = env.get("AWS_SECRET_ACCESS_KEY");
    try (var waiting = waiting(endpoint, own, secret)) {
      var at = waiting.getShardIterator(r -> r.streamName(stream).shardId(shard)
          .shardIteratorType(ShardIteratorType.TRIM_HORIZON)).shardIterator();
      check("waited for", waiting.getRecords(r -> r.shardIterator(at)).records().size(), records);
    }
    var other = env.get("CORKBOARD_OTHER_ID");
    if (other == null) {
      return;
    }
    var othersSecret = env.get("CORKBOARD_OTHER_SECRET");
    for (var wrong : List.of(List.of(own, "wrong", "InvalidSignatureException"),
        List.of(own, othersSecret, "InvalidSignatureException"),
        List.of("AKIDEXAMPLE", secret, "UnrecognizedClientException"),
        List.of(other, othersSecret, "AccessDeniedException"))) {
      try (var waiting = waiting(endpoint, wrong.get(0), wrong.get(1))) {
        waiting.putRecord(r -> r.streamName(stream).partitionKey("a").data(SdkBytes.fromUtf8String("refused")));
        throw new AssertionError(wrong.get(2) + " was not said");
      } catch (KinesisException error) {
        check("a wrong key", error.awsErrorDetails().errorCode(), wrong.get(2));
      }
    }
    try (var waiting = waiting(endpoint, other, othersSecret)) {
      var described = waiting.describeStreamSummary(r -> r.streamName(stream)).streamDescriptionSummary();
      check("a key that may look", described.streamName(), stream);
    }
  }

  String put(String data) throws Exception {
    return client.putRecord(r -> r.streamName(stream).partitionKey("a").data(SdkBytes.fromUtf8String(data)))
        .get().shardId();
  }

  void run(URI endpoint) throws Exception {
    client.createStream(r -> r.streamName(stream).shardCount(1)).get();
    untilActive();
    var shard = put("hello");
    var entries = IntStream.range(0, 500).mapToObj(i -> PutRecordsRequestEntry.builder()
        .partitionKey("k" + i).data(SdkBytes.fromUtf8String("record " + i)).build()).toList();
    var batch = client.putRecords(r -> r.streamName(stream).records(entries)).get();
    check("failed", batch.failedRecordCount(), 0);
    check("receipts", batch.records().size(), 500);

    var records = read(shard);
    var expected = new ArrayList<>(List.of("hello"));
    entries.forEach(entry -> expected.add(entry.data().asUtf8String()));
    check("read", texts(records), expected);
    check("its number", records.get(1).sequenceNumber(), batch.records().get(0).sequenceNumber());
    var age = Duration.between(records.get(0).approximateArrivalTimestamp(), Instant.now()).abs();
    check("it has just arrived", age.compareTo(Duration.ofMinutes(2)) < 0, true);

    var described = client.describeStreamSummary(r -> r.streamName(stream)).get().streamDescriptionSummary();
    subscribe(described.streamARN(), shard, expected);

    client.splitShard(r -> r.streamName(stream).shardToSplit(shard).newStartingHashKey(HALF)).get();
    untilActive();
    var shards = client.listShards(r -> r.streamName(stream)).get().shards();
    var child = client.putRecord(r -> r.streamName(stream).partitionKey("a").explicitHashKey(HALF)
        .data(SdkBytes.fromUtf8String("child"))).get().shardId();
    check("the child's shard", child, shards.get(2).shardId());
    check("its parent", shards.get(2).parentShardId(), shard);
    check("in the child", texts(read(child)), List.of("child"));
    check("in the parent", read(shard).size(), 502);
    wait(endpoint, shard, 502);

    try {
      client.describeStream(r -> r.streamName("nowhere")).get();
      throw new AssertionError("a stream that is not there was described");
    } catch (ExecutionException error) {
      check("a stream that is not there", error.getCause().getClass(), ResourceNotFoundException.class);
    }
    client.deleteStream(r -> r.streamName(stream)).get();
  }

  public static void main(String[] arguments) {
    var endpoint = URI.create(arguments[0]);
    var builder = KinesisAsyncClient.builder()
        .endpointOverride(endpoint)
        .region(Region.US_EAST_1)
        .overrideConfiguration(o -> o.apiCallTimeout(Duration.ofSeconds(20)).retryStrategy(r -> r.maxAttempts(1)));
    var protocol = arguments[1];
    if (protocol.equals("http1")) {
      builder.httpClientBuilder(NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1));
    }
    try (var client = builder.build()) {
      new Kinesis(client, "java-" + protocol + "-" + System.currentTimeMillis()).run(endpoint);
      System.out.println("Java, " + protocol + ": all claims hold");
    } catch (Throwable error) {
      error.printStackTrace();
      System.exit(1);
    }
    System.exit(0);
  }
}
