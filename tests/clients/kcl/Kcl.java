// Amazon's Kinesis Client Library consumes a stream, by polling and by enhanced fan-out, from a server
// that is running, with its leases and checkpoints in a DynamoDB that is running:
//
//     java -cp 'jars/*' Kcl.java http://127.0.0.1:8082 http://127.0.0.1:5000
//
// Both ways at once, each with a stream and an application of its own: the library takes its time.
// Records are put by the SDK before and while it runs. A first worker consumes, a shard is split, the
// worker is shut down, a second one goes on, and the halves are merged. In the end every record must
// have been delivered once, in the order of its shard, with no request tried twice. Any claim that does
// not hold ends the program.

import java.math.BigInteger;
import java.net.URI;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Objects;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.awscore.client.builder.AwsClientBuilder;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.core.interceptor.Context;
import software.amazon.awssdk.core.interceptor.ExecutionAttributes;
import software.amazon.awssdk.core.interceptor.ExecutionInterceptor;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.model.DescribeStreamConsumerRequest;
import software.amazon.awssdk.services.kinesis.model.PutRecordsRequestEntry;
import software.amazon.awssdk.services.kinesis.model.ResourceNotFoundException;
import software.amazon.awssdk.services.kinesis.model.Shard;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.RetrievalSpecificConfig;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

public class Kcl {
  static final int N_BEFORE = 3000;
  static final int N_AT_ONCE = 25;
  /** Two of them are more than an event of a subscription holds, one more than HTTP/2's window. */
  static final int LARGE_BYTES = 700_000;
  /** The library alone may wait for half a minute before it begins. */
  static final Duration PATIENCE = Duration.ofSeconds(180);

  enum Mode {
    POLLING, FAN_OUT;

    @Override
    public String toString() {
      return name().toLowerCase().replace('_', '-');
    }
  }

  /** A record, as it was put or as it was delivered. */
  record Line(BigInteger number, String key, SdkBytes data) {
    @Override
    public String toString() {
      return number + " (" + key + ", " + data.asByteArrayUnsafe().length + " bytes)";
    }
  }

  final Mode mode;
  final String name;
  final KinesisAsyncClient kinesis;
  final DynamoDbAsyncClient dynamo;
  final CloudWatchAsyncClient cloudWatch;
  final Random random = new Random(7);
  /** By shard, in the order of the sequence numbers. */
  final Map<String, NavigableMap<BigInteger, Line>> put = new ConcurrentHashMap<>();
  /** By shard, in the order in which they came. */
  final Map<String, List<Line>> delivered = new ConcurrentHashMap<>();
  /** The shards whose end was told, before any of their children can have been begun. */
  final Set<String> ended = ConcurrentHashMap.newKeySet();
  /** Which had ended when a shard was begun. */
  final Map<String, Set<String>> endedBefore = new ConcurrentHashMap<>();
  final Requests requests = new Requests();
  final AtomicReference<String> fault = new AtomicReference<>();
  /** The library gives up what it has asked for. */
  volatile boolean isStopping;

  Kcl(Mode mode, String kinesisUrl, String dynamoUrl) {
    this.mode = mode;
    name = "kcl-" + mode + "-" + System.currentTimeMillis();
    kinesis = KinesisClientUtil.createKinesisAsyncClient(at(kinesisUrl, KinesisAsyncClient.builder())
        .overrideConfiguration(o -> o.addExecutionInterceptor(requests)));
    dynamo = at(dynamoUrl, DynamoDbAsyncClient.builder()).build();
    // The library wants one; without metrics it is not asked for anything.
    cloudWatch = at(dynamoUrl, CloudWatchAsyncClient.builder()).build();
  }

  static <B extends AwsClientBuilder<B, ?>> B at(String url, B builder) {
    return builder.endpointOverride(URI.create(url)).region(Region.US_EAST_1)
        .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create("AKIDEXAMPLE", "secret")));
  }

  void check(boolean holds, String otherwise) {
    if (!holds) {
      throw new AssertionError(mode + ": " + otherwise);
    }
  }

  /** What does not hold in one of the library's threads, which would only log it. */
  void failUnless(boolean holds, String otherwise) {
    if (!holds) {
      fault.compareAndSet(null, otherwise);
    }
  }

  void await(String claim, BooleanSupplier holds) throws Exception {
    var begin = Instant.now();
    while (!holds.getAsBoolean()) {
      check(fault.get() == null, fault.get());
      var waited = Duration.between(begin, Instant.now());
      check(waited.compareTo(PATIENCE) < 0, "not within " + PATIENCE.toSeconds() + " s: " + claim);
      Thread.sleep(20);
    }
    System.out.printf("%s, after %.1f s: %s%n", mode, Duration.between(begin, Instant.now()).toMillis() / 1e3, claim);
  }

  static <T> T get(CompletableFuture<T> answer) throws Exception {
    return answer.get(20, TimeUnit.SECONDS);
  }

  void putSome() throws Exception {
    var lines = Stream.generate(() -> {
      var data = new byte[random.nextInt(500) == 0 ? LARGE_BYTES : random.nextInt(200)];
      random.nextBytes(data);
      return new Line(null, "k" + random.nextInt(1000), SdkBytes.fromByteArrayUnsafe(data));
    }).limit(N_AT_ONCE).toList();
    var entries = lines.stream()
        .map(line -> PutRecordsRequestEntry.builder().partitionKey(line.key).data(line.data).build()).toList();
    var answer = get(kinesis.putRecords(r -> r.streamName(name).records(entries)));
    check(answer.failedRecordCount() == 0, answer.failedRecordCount() + " records were not put");
    for (int i = 0; i < lines.size(); i++) {
      var receipt = answer.records().get(i);
      var line = new Line(new BigInteger(receipt.sequenceNumber()), lines.get(i).key, lines.get(i).data);
      synchronized (this) {
        put.computeIfAbsent(receipt.shardId(), shard -> new TreeMap<>()).put(line.number, line);
      }
    }
  }

  synchronized int nPut() {
    return put.values().stream().mapToInt(Map::size).sum();
  }

  int nDelivered() {
    return delivered.values().stream().mapToInt(List::size).sum();
  }

  int nDelivered(String shard) {
    return delivered.getOrDefault(shard, List.of()).size();
  }

  String last(String shard) {
    var lines = delivered.get(shard);
    return lines.get(lines.size() - 1).number.toString();
  }

  /** Whether the last record of each shard was delivered, and so all before it or never. */
  synchronized boolean isCaughtUp() {
    return put.entrySet().stream().allMatch(of -> nDelivered(of.getKey()) > 0
        && new BigInteger(last(of.getKey())).compareTo(of.getValue().lastKey()) >= 0);
  }

  List<Shard> shards() throws Exception {
    get(kinesis.waiter().waitUntilStreamExists(r -> r.streamName(name)));
    return get(kinesis.listShards(r -> r.streamName(name))).shards();
  }

  static Set<String> parents(Shard shard) {
    return Stream.of(shard.parentShardId(), shard.adjacentParentShardId()).filter(Objects::nonNull)
        .collect(Collectors.toSet());
  }

  List<String> children(String parent) throws Exception {
    return shards().stream().filter(shard -> parents(shard).contains(parent)).map(Shard::shardId).toList();
  }

  /** In the middle of its hash keys. */
  void split(Shard shard) throws Exception {
    var range = shard.hashKeyRange();
    var middle = new BigInteger(range.startingHashKey()).add(new BigInteger(range.endingHashKey())).shiftRight(1);
    get(kinesis.splitShard(r -> r.streamName(name).shardToSplit(shard.shardId())
        .newStartingHashKey(middle.toString())));
  }

  /** What the library's table of leases says of each shard. */
  Map<String, String> checkpoints() throws Exception {
    return get(dynamo.scan(r -> r.tableName(name))).items().stream().filter(item -> item.containsKey("checkpoint"))
        .collect(Collectors.toMap(item -> item.get("leaseKey").s(), item -> item.get("checkpoint").s()));
  }

  /** One run of the library. */
  class Worker {
    final String id;
    final Scheduler scheduler;
    /** Where it began in each shard. */
    final Map<String, String> beginnings = new ConcurrentHashMap<>();
    volatile boolean isAskedToStop;

    Worker(String id) {
      this.id = id;
      var horizon = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
      var configs = new ConfigsBuilder(new SingleStreamTracker(name, horizon), name, kinesis, dynamo, cloudWatch, id,
          () -> new Processor(this));
      RetrievalSpecificConfig retrieval = switch (mode) {
        case POLLING -> new PollingConfig(name, kinesis).idleTimeBetweenReadsInMillis(200);
        case FAN_OUT -> new FanOutConfig(kinesis).streamName(name).applicationName(name);
      };
      // As quick as it goes, but for the ten seconds after which a worker counts as gone: with fewer, one
      // that has to wait for its turn on a busy machine would.
      var leases = configs.leaseManagementConfig().leaseAssignmentIntervalMillis(1000L).shardSyncIntervalMillis(100);
      leases.workerUtilizationAwareAssignmentConfig().workerMetricsReporterFreqInMillis(3000);
      scheduler = new Scheduler(
          configs.checkpointConfig(),
          configs.coordinatorConfig().parentShardPollIntervalMillis(500).shardConsumerDispatchPollIntervalMillis(200),
          leases,
          configs.lifecycleConfig(),
          configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
          configs.processorConfig(),
          configs.retrievalConfig().retrievalSpecificConfig(retrieval));
    }

    Worker start() {
      var thread = new Thread(scheduler, mode + " " + id);
      thread.setDaemon(true);
      thread.start();
      return this;
    }

    void stop() throws Exception {
      isAskedToStop = true;
      isStopping = true;
      var isInOrder = scheduler.startGracefulShutdown().get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
      isStopping = false;
      check(isInOrder, "the " + id + " worker did not stop in good order");
      check(fault.get() == null, fault.get());
    }
  }

  /** Takes the records of one shard. */
  class Processor implements ShardRecordProcessor {
    final Worker worker;
    String shard;

    Processor(Worker worker) {
      this.worker = worker;
    }

    @Override
    public void initialize(InitializationInput input) {
      shard = input.shardId();
      worker.beginnings.put(shard, input.extendedSequenceNumber().sequenceNumber());
      endedBefore.putIfAbsent(shard, Set.copyOf(ended));
      failUnless(!ended.contains(shard), "the " + worker.id + " worker took " + shard + ", which had ended");
    }

    @Override
    public void processRecords(ProcessRecordsInput input) {
      var lines = delivered.computeIfAbsent(shard, key -> Collections.synchronizedList(new ArrayList<>()));
      input.records().forEach(record -> lines.add(line(record)));
      failUnless(input.millisBehindLatest() != null, "the library was not told how far it is behind");
      checkpoint(input.checkpointer());
    }

    Line line(KinesisClientRecord record) {
      var age = Duration.between(record.approximateArrivalTimestamp(), Instant.now()).abs();
      failUnless(age.compareTo(Duration.ofMinutes(10)) < 0, "a record is said to be " + age + " old");
      var number = new BigInteger(record.sequenceNumber());
      return new Line(number, record.partitionKey(), SdkBytes.fromByteBuffer(record.data()));
    }

    void checkpoint(RecordProcessorCheckpointer checkpointer) {
      try {
        checkpointer.checkpoint();
      } catch (Exception error) {
        failUnless(false, "no checkpoint in " + shard + ": " + error);
      }
    }

    @Override
    public void shardEnded(ShardEndedInput input) {
      ended.add(shard);
      checkpoint(input.checkpointer());
    }

    @Override
    public void shutdownRequested(ShutdownRequestedInput input) {
      checkpoint(input.checkpointer());
    }

    @Override
    public void leaseLost(LeaseLostInput input) {
      failUnless(worker.isAskedToStop, "the " + worker.id + " worker lost its lease of " + shard);
    }
  }

  /** What the SDK was asked for, by the library too, which would try again what fails and say nothing. */
  class Requests implements ExecutionInterceptor {
    final Map<String, Integer> nAsked = new ConcurrentHashMap<>();
    final Map<String, Integer> nTried = new ConcurrentHashMap<>();

    @Override
    public void beforeExecution(Context.BeforeExecution context, ExecutionAttributes attributes) {
      nAsked.merge(context.request().getClass().getSimpleName(), 1, Integer::sum);
    }

    @Override
    public void beforeTransmission(Context.BeforeTransmission context, ExecutionAttributes attributes) {
      nTried.merge(context.request().getClass().getSimpleName(), 1, Integer::sum);
    }

    @Override
    public void onExecutionFailure(Context.FailedExecution context, ExecutionAttributes attributes) {
      // The library asks for its consumer to see if it has to register it.
      var isExpected = context.request() instanceof DescribeStreamConsumerRequest
          && context.exception() instanceof ResourceNotFoundException;
      var request = context.request().getClass().getSimpleName();
      failUnless(isExpected || isStopping, request + " failed: " + context.exception());
    }
  }

  void run() throws Exception {
    get(kinesis.createStream(r -> r.streamName(name).shardCount(2)));
    var shard = shards().get(0);
    while (nPut() < N_BEFORE) {
      putSome();
    }
    var first = new Worker("first").start();
    await("what was there before is delivered", this::isCaughtUp);
    compare();

    var isEnough = new CompletableFuture<Void>();
    var putting = CompletableFuture.runAsync(() -> {
      try {
        for (; !isEnough.isDone(); Thread.sleep(100)) {
          putSome();
        }
      } catch (Exception error) {
        failUnless(false, "a put failed: " + error);
      }
    });
    await("what is put now is delivered", () -> nDelivered() >= N_BEFORE + 10 * N_AT_ONCE);
    split(shard);
    await("the shard that was split has ended", () -> ended.contains(shard.shardId()));
    var halves = children(shard.shardId());
    check(halves.size() == 2, "the halves are " + halves);
    await("its halves are consumed", () -> halves.stream().allMatch(half -> nDelivered(half) > 0));
    first.stop();

    var checkpoints = checkpoints();
    var nByFirst = nDelivered();
    check("SHARD_END".equals(checkpoints.remove(shard.shardId())), "no checkpoint says that the shard has ended");
    check(checkpoints.keySet().containsAll(halves) && checkpoints.size() == 3, "there are others: " + checkpoints);
    checkpoints.forEach((open, checkpoint) -> check(checkpoint.equals(last(open)),
        "the checkpoint of " + open + " is " + checkpoint + ", not the last record, " + last(open)));
    check(nPut() > nByFirst, "nothing was put between the two workers");
    var second = new Worker("second").start();
    await("a second worker goes on", () -> second.beginnings.size() >= checkpoints.size());
    check(second.beginnings.equals(checkpoints), "it began at " + second.beginnings + ", not " + checkpoints);
    get(kinesis.mergeShards(r -> r.streamName(name).shardToMerge(halves.get(0))
        .adjacentShardToMerge(halves.get(1))));
    await("the shards that were merged have ended", () -> ended.containsAll(halves));
    var whole = children(halves.get(0));
    check(whole.size() == 1 && whole.equals(children(halves.get(1))), "the halves were merged into " + whole);
    await("what they were merged into is consumed", () -> nDelivered(whole.get(0)) > 0);
    isEnough.complete(null);
    get(putting);
    await("everything is delivered", this::isCaughtUp);
    second.stop();

    compare();
    for (var child : shards()) {
      check(endedBefore.get(child.shardId()).containsAll(parents(child)),
          child.shardId() + " was begun before the end of " + parents(child));
    }
    requests.nTried.forEach((request, n) -> check(n <= requests.nAsked.get(request),
        n + " times " + request + ", where " + requests.nAsked.get(request) + " were asked for"));
    var reader = mode == Mode.POLLING ? "GetShardIteratorRequest" : "SubscribeToShardRequest";
    var nBegun = first.beginnings.size() + second.beginnings.size();
    check(nBegun == 8, nBegun + " shards were begun");
    check(requests.nAsked.get(reader) == nBegun, requests.nAsked.get(reader) + " times " + reader + ", not " + nBegun);
    get(kinesis.deleteStream(r -> r.streamName(name).enforceConsumerDeletion(true)));
    System.out.printf("KCL, %s: all claims hold, with %d records, %d of them by the second worker%n", mode, nPut(),
        nPut() - nByFirst);
  }

  /** Every record that was put was delivered once, in the order of its shard, and nothing else. */
  void compare() {
    check(delivered.keySet().equals(put.keySet()), "shards " + delivered.keySet() + " and not " + put.keySet());
    put.forEach((shard, lines) -> {
      var expected = List.copyOf(lines.values());
      var found = delivered.get(shard);
      var seen = new HashSet<BigInteger>();
      for (int i = 0; i < found.size(); i++) {
        check(seen.add(found.get(i).number), shard + ": delivered twice: " + found.get(i));
        check(i < expected.size(), shard + ": delivered, but never put: " + found.get(i));
        check(found.get(i).equals(expected.get(i)), shard + ": " + found.get(i) + ", not " + expected.get(i));
      }
      check(found.size() == expected.size(), shard + ": lost: " + expected.subList(found.size(), expected.size()));
    });
  }

  public static void main(String[] arguments) {
    var runs = Stream.of(Mode.values()).map(mode -> CompletableFuture.runAsync(() -> {
      try {
        new Kcl(mode, arguments[0], arguments[1]).run();
      } catch (Throwable error) {
        error.printStackTrace();
        // The other one is still under way.
        System.exit(1);
      }
    }, task -> new Thread(task).start())).toList();
    runs.forEach(CompletableFuture::join);
    System.exit(0);
  }
}
