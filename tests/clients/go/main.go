// A stream as AWS's SDK for Go uses it, against a server that is running:
//
//	AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any go run . http://127.0.0.1:8082
//
// If CORKBOARD_OTHER_ID and CORKBOARD_OTHER_SECRET are those of a key that may only describe, the server asks
// for keys, and refuses wrong ones. Any claim that does not hold ends it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
)

var half = new(big.Int).Lsh(big.NewInt(1), 127).String()

// must ends the program, or passes on what was asked for.
func must[T any](found T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return found
}

func check(claim string, found, expected any) {
	if found != expected {
		log.Fatalf("%s: %v, not %v", claim, found, expected)
	}
}

type stream struct {
	context.Context
	*kinesis.Client
	name *string
}

func (s stream) put(data string, explicitHashKey *string) *kinesis.PutRecordOutput {
	return must(s.PutRecord(s, &kinesis.PutRecordInput{
		StreamName: s.name, PartitionKey: aws.String("a"), Data: []byte(data), ExplicitHashKey: explicitHashKey,
	}))
}

func (s stream) untilActive() *types.StreamDescriptionSummary {
	waiter := kinesis.NewStreamExistsWaiter(s.Client)
	if err := waiter.Wait(s, &kinesis.DescribeStreamInput{StreamName: s.name}, 20*time.Second); err != nil {
		log.Fatal(err)
	}
	described := must(s.DescribeStreamSummary(s, &kinesis.DescribeStreamSummaryInput{StreamName: s.name}))
	return described.StreamDescriptionSummary
}

// read gives the records of a shard from its beginning, up to its tip or its end.
func (s stream) read(shard *string) (records []types.Record) {
	iterator := must(s.GetShardIterator(s, &kinesis.GetShardIteratorInput{
		StreamName: s.name, ShardId: shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})).ShardIterator
	for iterator != nil {
		answer := must(s.GetRecords(s, &kinesis.GetRecordsInput{ShardIterator: iterator}))
		records = append(records, answer.Records...)
		if len(answer.Records) == 0 && *answer.MillisBehindLatest == 0 {
			break
		}
		iterator = answer.NextShardIterator
	}
	return records
}

func (s stream) subscribe(arn, shard *string, expected []types.Record) {
	registered := must(s.RegisterStreamConsumer(s, &kinesis.RegisterStreamConsumerInput{
		StreamARN: arn, ConsumerName: aws.String("c"),
	}))
	n, err := 0, net.ErrClosed
	allThere := sync.OnceFunc(func() { s.put("later", nil) })
	// Now and then, over HTTP/1.1, the SDK closes its own connection while it reads from it.
	for tries := 0; errors.Is(err, net.ErrClosed) && tries < 5; tries++ {
		n, err = s.pushed(registered.Consumer.ConsumerARN, shard, expected, allThere)
	}
	if err != nil {
		log.Fatalf("the subscription ended after %d records: %v", n, err)
	}
	check("pushed records", n, len(expected)+1)
	must(s.DeregisterStreamConsumer(s, &kinesis.DeregisterStreamConsumerInput{
		ConsumerARN: registered.Consumer.ConsumerARN,
	}))
}

// pushed says how many records came, and how the subscription ended if that was before all had come.
func (s stream) pushed(consumer, shard *string, expected []types.Record, allThere func()) (int, error) {
	subscribed := must(s.SubscribeToShard(s, &kinesis.SubscribeToShardInput{
		ConsumerARN: consumer, ShardId: shard,
		StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon},
	}))
	events := subscribed.GetStream()
	n := 0
	for event := range events.Events() {
		pushed, is := event.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
		if !is {
			log.Fatalf("an event of the type %T", event)
		}
		for _, record := range pushed.Value.Records {
			if n < len(expected) {
				check("pushed", string(record.Data), string(expected[n].Data))
			} else {
				check("pushed as it comes", string(record.Data), "later")
			}
			n++
			if n == len(expected) {
				allThere()
			}
		}
		if n > len(expected) {
			return n, events.Close()
		}
	}
	return n, events.Err()
}

func client(id, secret string) *kinesis.Client {
	return kinesis.New(kinesis.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(os.Args[1]), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(id, secret, ""),
	})
}

// keys tries those that are wrong, or may not.
func (s stream) keys() {
	own, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	other, othersSecret := os.Getenv("CORKBOARD_OTHER_ID"), os.Getenv("CORKBOARD_OTHER_SECRET")
	for _, refused := range []struct{ id, secret, code string }{
		{own, "wrong", "InvalidSignatureException"},
		{own, othersSecret, "InvalidSignatureException"},
		{"AKIDEXAMPLE", secret, "UnrecognizedClientException"},
		{other, othersSecret, "AccessDeniedException"},
	} {
		_, err := client(refused.id, refused.secret).PutRecord(s, &kinesis.PutRecordInput{
			StreamName: s.name, PartitionKey: aws.String("a"), Data: []byte("refused"),
		})
		var said smithy.APIError
		check(refused.code+" is an error", errors.As(err, &said), true)
		check("its code", said.ErrorCode(), refused.code)
	}
	looked := must(client(other, othersSecret).DescribeStreamSummary(s, &kinesis.DescribeStreamSummaryInput{
		StreamName: s.name,
	}))
	check("a key that may look", *looked.StreamDescriptionSummary.StreamName, *s.name)
}

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := stream{ctx, client(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")),
		aws.String(fmt.Sprintf("go-%d", time.Now().UnixMilli()))}
	must(s.CreateStream(s, &kinesis.CreateStreamInput{StreamName: s.name, ShardCount: aws.Int32(1)}))
	arn := s.untilActive().StreamARN
	if os.Getenv("CORKBOARD_OTHER_ID") != "" {
		s.keys()
	}

	first := s.put("hello", nil)
	entries := make([]types.PutRecordsRequestEntry, 500)
	for i := range entries {
		entries[i].PartitionKey = aws.String(fmt.Sprint("k", i))
		entries[i].Data = []byte(fmt.Sprint("record ", i))
	}
	batch := must(s.PutRecords(s, &kinesis.PutRecordsInput{StreamName: s.name, Records: entries}))
	check("failed", *batch.FailedRecordCount, int32(0))
	check("receipts", len(batch.Records), 500)

	records := s.read(first.ShardId)
	check("records", len(records), 501)
	check("the first", string(records[0].Data), "hello")
	check("its number", *records[0].SequenceNumber, *first.SequenceNumber)
	check("it has just arrived", time.Since(*records[0].ApproximateArrivalTimestamp).Abs() < 2*time.Minute, true)
	for i, entry := range entries {
		check("in order", string(records[i+1].Data), string(entry.Data))
	}
	s.subscribe(arn, first.ShardId, records)

	must(s.SplitShard(s, &kinesis.SplitShardInput{
		StreamName: s.name, ShardToSplit: first.ShardId, NewStartingHashKey: aws.String(half),
	}))
	check("open shards", *s.untilActive().OpenShardCount, int32(2))
	shards := must(s.ListShards(s, &kinesis.ListShardsInput{StreamName: s.name})).Shards
	child := s.put("child", aws.String(half))
	check("the child's shard", *child.ShardId, *shards[2].ShardId)
	check("its parent", *shards[2].ParentShardId, *first.ShardId)
	check("in the child", string(s.read(child.ShardId)[0].Data), "child")
	check("in the parent", len(s.read(first.ShardId)), 502)

	_, err := s.PutRecord(s, &kinesis.PutRecordInput{
		StreamName: aws.String("nowhere"), PartitionKey: aws.String("a"), Data: []byte{},
	})
	var unknown *types.ResourceNotFoundException
	check("a stream that is not there", errors.As(err, &unknown), true)
	must(s.DeleteStream(s, &kinesis.DeleteStreamInput{StreamName: s.name}))
	fmt.Println("Go: all claims hold")
}
