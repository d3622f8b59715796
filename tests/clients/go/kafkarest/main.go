// Version 3 of Kafka's REST proxy as Confluent's own SDK for Go asks for it, which its command line is
// made with, against a server that is running:
//
//	go run ./kafkarest http://127.0.0.1:8082
//
// If CORKBOARD_KEY and CORKBOARD_OTHER_KEY are keys, the second of which may only describe, the server asks
// for them, and the SDK brings them as it does to Confluent's cloud. Any claim that does not hold ends it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/antihax/optional"
	kafkarest "github.com/confluentinc/kafka-rest-sdk-go/kafkarestv3"
)

// must ends the program, or passes on what was asked for. The SDK's answers come with the raw one.
func must[T any](found T, raw *http.Response, err error) T {
	done(raw, err)
	return found
}

func done(raw *http.Response, err error) {
	var refused kafkarest.GenericOpenAPIError
	if errors.As(err, &refused) {
		log.Fatalf("%s %s: %v: %s", raw.Request.Method, raw.Request.URL, err, refused.Body())
	}
	if err != nil {
		log.Fatal(err)
	}
}

func check(claim string, found, expected any) {
	if found != expected {
		log.Fatalf("%s: %v, not %v", claim, found, expected)
	}
}

// refused has the code and the words that the SDK finds in an error.
func refused(claim string, raw *http.Response, err error, status, code int, words string) {
	var answer kafkarest.GenericOpenAPIError
	if !errors.As(err, &answer) {
		log.Fatalf("%s: %v", claim, err)
	}
	var said kafkarest.Error
	if err := json.Unmarshal(answer.Body(), &said); err != nil || said.Message == nil {
		log.Fatalf("%s: %s", claim, answer.Body())
	}
	check(claim+", its status", raw.StatusCode, status)
	check(claim+", its code", said.ErrorCode, int32(code))
	check(claim+", its words: "+*said.Message, strings.Contains(*said.Message, words), true)
}

type program struct {
	context.Context
	*kafkarest.APIClient
	url, cluster, topic string
}

func (p program) produce(record kafkarest.ProduceRequest) (kafkarest.ProduceResponse, *http.Response, error) {
	return p.RecordsApi.ClustersClusterIdTopicsTopicNameRecordsPost(p, p.cluster, p.topic,
		&kafkarest.ClustersClusterIdTopicsTopicNameRecordsPostOpts{ProduceRequest: optional.NewInterface(record)})
}

func data(kind string, value any) *kafkarest.ProduceRequestData {
	return &kafkarest.ProduceRequestData{Type: kind, Data: &value}
}

func (p program) create(topic kafkarest.CreateTopicRequestData) (kafkarest.TopicData, *http.Response, error) {
	return p.TopicV3Api.CreateKafkaTopic(p, p.cluster,
		&kafkarest.CreateKafkaTopicOpts{CreateTopicRequestData: optional.NewInterface(topic)})
}

// ask is for what the SDK has no call for, with the key that it has.
func (p program) ask(method, url, body string) *http.Response {
	request, err := http.NewRequestWithContext(p, method, url, strings.NewReader(body))
	done(nil, err)
	request.Header.Set("Content-Type", "application/vnd.kafka.v2+json")
	if key, has := p.Value(kafkarest.ContextBasicAuth).(kafkarest.BasicAuth); has {
		request.SetBasicAuth(key.UserName, key.Password)
	}
	answer, err := http.DefaultClient.Do(request)
	done(nil, err)
	return answer
}

// follows a link that an answer holds.
func (p program) follow(kind string, link kafkarest.Relationship) {
	check("a link's begin", strings.HasPrefix(link.Related, p.url+"/v3/"), true)
	answer := p.ask("GET", link.Related, "")
	defer answer.Body.Close()
	var found struct{ Kind string }
	if err := json.NewDecoder(answer.Body).Decode(&found); err != nil {
		log.Fatalf("%s: %v", link.Related, err)
	}
	check(link.Related, found.Kind, kind)
}

func (p program) topics() {
	before := len(must(p.TopicV3Api.ListKafkaTopics(p, p.cluster)).Data)
	made := must(p.create(kafkarest.CreateTopicRequestData{
		TopicName: p.topic, PartitionsCount: 3, ReplicationFactor: 1,
		Configs: []kafkarest.CreateTopicRequestDataConfigs{{Name: "cleanup.policy", Value: kafkarest.PtrString("delete")}},
	}))
	check("a topic", made.TopicName, p.topic)
	check("its partitions", made.PartitionsCount, int32(3))
	_, raw, err := p.create(kafkarest.CreateTopicRequestData{TopicName: p.topic})
	refused("a topic that exists", raw, err, 400, 40002, "already exists")
	_, raw, err = p.create(kafkarest.CreateTopicRequestData{TopicName: "a topic"})
	refused("a bad name", raw, err, 422, 42206, "Invalid topic name")
	check("one more topic", len(must(p.TopicV3Api.ListKafkaTopics(p, p.cluster)).Data), before+1)

	one := must(p.TopicV3Api.GetKafkaTopic(p, p.cluster, p.topic))
	check("the topic", one.Metadata.Self, made.Metadata.Self)
	p.follow("KafkaPartitionList", one.Partitions)
	p.follow("KafkaTopicConfigList", one.Configs)
	partitions := must(p.PartitionV3Api.ListKafkaPartitions(p, p.cluster, p.topic)).Data
	check("partitions", len(partitions), 3)
	for i, listed := range partitions {
		partition := must(p.PartitionV3Api.GetKafkaPartition(p, p.cluster, p.topic, int32(i)))
		check("a partition", partition.Metadata.Self, listed.Metadata.Self)
	}
	_, raw, err = p.PartitionV3Api.GetKafkaPartition(p, p.cluster, p.topic, 3)
	refused("a partition that is not there", raw, err, 404, 40402, "Partition not found")
	_, raw, err = p.TopicV3Api.GetKafkaTopic(p, p.cluster, p.topic+"-none")
	refused("a topic that is not there", raw, err, 404, 40403, "does not host")
}

func (p program) configs() {
	configs := must(p.ConfigsV3Api.ListKafkaTopicConfigs(p, p.cluster, p.topic)).Data
	for _, listed := range configs {
		config := must(p.ConfigsV3Api.GetKafkaTopicConfig(p, p.cluster, p.topic, listed.Name))
		check(config.Name, *config.Value, *listed.Value)
		check(config.Name+"'s synonyms", len(config.Synonyms), 1)
	}
	alter := func(name, value string) (*http.Response, error) {
		asked := kafkarest.AlterConfigBatchRequestData{
			Data: []kafkarest.AlterConfigBatchRequestDataData{{Name: name, Value: &value}},
		}
		return p.ConfigsV3Api.UpdateKafkaTopicConfigBatch(p, p.cluster, p.topic,
			&kafkarest.UpdateKafkaTopicConfigBatchOpts{AlterConfigBatchRequestData: optional.NewInterface(asked)})
	}
	done(alter("cleanup.policy", "delete"))
	raw, err := alter("cleanup.policy", "compact")
	refused("what cannot be set", raw, err, 400, 40002, "cleanup.policy")
	raw, err = alter("colour", "red")
	refused("what is no setting", raw, err, 404, 404, "colour")
}

func (p program) records() {
	at := time.Now().UTC().Truncate(time.Millisecond).Add(-time.Hour)
	record := kafkarest.ProduceRequest{
		PartitionId: kafkarest.PtrInt32(1), Timestamp: &at,
		Headers: []kafkarest.ProduceRequestHeader{{Name: "h", Value: kafkarest.PtrString("aA==")}},
		Key:     data("BINARY", "Zm9v"), Value: data("JSON", map[string]any{"n": 1}),
	}
	for i := range int32(2) {
		receipt := must(p.produce(record))
		check("its topic", receipt.TopicName, p.topic)
		check("its partition", receipt.PartitionId, int32(1))
		check("its offset", receipt.Offset, i)
		check("its time", receipt.Timestamp.Equal(at), true)
		check("its key", fmt.Sprint(*receipt.Key.Type, receipt.Key.Size), "BINARY3")
		check("its value", fmt.Sprint(*receipt.Value.Type, receipt.Value.Size), "JSON7")
	}
	must(p.produce(kafkarest.ProduceRequest{Value: data("STRING", "hello")}))
	_, raw, err := p.RecordsApi.ClustersClusterIdTopicsTopicNameRecordsPost(p, "elsewhere", p.topic,
		&kafkarest.ClustersClusterIdTopicsTopicNameRecordsPostOpts{ProduceRequest: optional.NewInterface(record)})
	refused("another cluster", raw, err, 404, 404, "Cluster elsewhere cannot be found")
}

// groups are made by version 2: version 3 only tells of them.
func (p program) groups() {
	group := p.topic + "-readers"
	ask := func(path, body string) {
		answer := p.ask("POST", p.url+"/consumers/"+group+path, body)
		answer.Body.Close()
		check(path, answer.StatusCode/100, 2)
	}
	ask("", `{"name":"one","format":"binary","auto.offset.reset":"earliest"}`)
	one := "/instances/one"
	ask(one+"/assignments", fmt.Sprintf(`{"partitions":[{"topic":%q,"partition":1}]}`, p.topic))
	ask(one+"/offsets", fmt.Sprintf(`{"offsets":[{"topic":%q,"partition":1,"offset":0}]}`, p.topic))

	isThere := false
	for _, listed := range must(p.ConsumerGroupV3Api.ListKafkaConsumerGroups(p, p.cluster)).Data {
		isThere = isThere || listed.ConsumerGroupId == group
	}
	check("the group is listed", isThere, true)
	found := must(p.ConsumerGroupV3Api.GetKafkaConsumerGroup(p, p.cluster, group))
	p.follow("KafkaConsumerList", found.Consumer)
	p.follow("KafkaConsumerGroupLagSummary", found.LagSummary)
	consumers := must(p.ConsumerGroupV3Api.ListKafkaConsumers(p, p.cluster, group)).Data
	check("consumers", len(consumers), 1)
	check("the consumer", *consumers[0].InstanceId, "one")
	lags := must(p.ConsumerGroupV3Api.ListKafkaConsumerLags(p, p.cluster, group)).Data
	check("lags", len(lags), 1)
	check("the lag", fmt.Sprint(lags[0].CurrentOffset, lags[0].LogEndOffset, lags[0].Lag), "1 2 1")
	summary := must(p.ConsumerGroupV3Api.GetKafkaConsumerGroupLagSummary(p, p.cluster, group))
	check("the largest lag", fmt.Sprint(summary.MaxLagTopicName, summary.MaxLagPartitionId, summary.TotalLag),
		fmt.Sprint(p.topic, 1, 1))
	_, raw, err := p.ConsumerGroupV3Api.GetKafkaConsumerGroup(p, p.cluster, group+"-none")
	refused("a group that is not there", raw, err, 404, 404, "cannot be found")
}

// with has another key, or none.
func (p program) with(key string) program {
	id, rest, _ := strings.Cut(key, ".")
	p.Context = context.WithValue(p.Context, kafkarest.ContextBasicAuth, kafkarest.BasicAuth{UserName: id, Password: rest})
	return p
}

func (p program) keys(own, other string) {
	id, rest, _ := strings.Cut(own, ".")
	_, othersRest, _ := strings.Cut(other, ".")
	for _, wrong := range []string{".", own + "x", id + "." + othersRest, "CORKAAAAAAAAAAAAAAAA." + rest} {
		_, raw, err := p.with(wrong).TopicV3Api.ListKafkaTopics(p.with(wrong), p.cluster)
		refused("a wrong key", raw, err, 401, 40101, "not valid")
	}
	p = p.with(other)
	_, raw, err := p.create(kafkarest.CreateTopicRequestData{TopicName: p.topic + "-not"})
	refused("a key that may not", raw, err, 403, 40301, "admin")
	_, raw, err = p.produce(kafkarest.ProduceRequest{Value: data("STRING", "refused")})
	refused("a key that may not produce", raw, err, 403, 40301, "produce")
	check("a key that may look", must(p.TopicV3Api.GetKafkaTopic(p, p.cluster, p.topic)).TopicName, p.topic)
}

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	configuration := kafkarest.NewConfiguration()
	configuration.BasePath = os.Args[1] + "/v3"
	p := program{Context: ctx, APIClient: kafkarest.NewAPIClient(configuration), url: os.Args[1]}
	p.topic = fmt.Sprintf("go-rest-%d", time.Now().UnixMilli())

	own, other := os.Getenv("CORKBOARD_KEY"), os.Getenv("CORKBOARD_OTHER_KEY")
	if own != "" {
		p = p.with(own)
	}
	clusters := must(p.ClusterV3Api.ClustersGet(p)).Data
	check("clusters", len(clusters), 1)
	p.cluster = clusters[0].ClusterId
	check("the cluster", must(p.ClusterV3Api.GetKafkaCluster(p, p.cluster)).Metadata.Self, clusters[0].Metadata.Self)
	check("brokers", len(must(p.BrokerV3Api.ClustersClusterIdBrokersGet(p, p.cluster)).Data), 1)
	p.topics()
	if own != "" {
		p.keys(own, other)
	}
	p.configs()
	p.records()
	p.groups()
	done(p.TopicV3Api.DeleteKafkaTopic(p, p.cluster, p.topic))
	raw, err := p.TopicV3Api.DeleteKafkaTopic(p, p.cluster, p.topic)
	refused("a topic that was deleted", raw, err, 404, 40403, "does not host")
	fmt.Println("Go, Kafka REST version 3: all claims hold")
}
