#!/usr/bin/env bash
# The commands that the documentation of Kafka's REST proxy shows, with what it says they answer,
# against a server that is running:
#
#     curl.sh http://127.0.0.1:8082
#
# If CORKBOARD_KEY and CORKBOARD_OTHER_KEY are keys, the second of which may only describe, the server asks
# for them. Any claim that does not hold ends it.
set -euo pipefail

url=$1
topic="jsontest-$(date +%s%N)"
group="my_json_consumer-$topic"
instance="$url/consumers/$group/instances/my_consumer_instance"

key=()
if [ -n "${CORKBOARD_KEY-}" ]; then
    key=(-H "Authorization: Bearer $CORKBOARD_KEY")
fi

# Ends at whatever is no success, and waits for nobody.
ask() {
    curl --silent --show-error --fail-with-body --max-time 30 "${key[@]}" "$@"
}

status() {
    curl --silent --max-time 30 --output /dev/null --write-out '%{http_code}' "$@"
}

check() { # CLAIM FOUND EXPECTED
    if [ "$2" != "$3" ]; then
        echo "$1: '$2', not '$3'" >&2
        exit 1
    fi
}

# Version 2: produce, consume, look around.
found=$(ask -X POST -H 'Content-Type: application/vnd.kafka.json.v2+json' \
    -H 'Accept: application/vnd.kafka.v2+json' \
    --data '{"records":[{"value":{"foo":"bar"}}]}' "$url/topics/$topic")
check 'produced' "$(sed -E 's/"(partition|offset)":[0-9]+/"\1":N/g' <<<"$found")" \
    '{"offsets":[{"partition":N,"offset":N,"error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":null}'
found=$(ask -X POST -H 'Content-Type: application/vnd.kafka.v2+json' \
    --data '{"name": "my_consumer_instance", "format": "json", "auto.offset.reset": "earliest"}' \
    "$url/consumers/$group")
check 'a consumer' "$found" "{\"instance_id\":\"my_consumer_instance\",\"base_uri\":\"$instance\"}"
ask -X POST -H 'Content-Type: application/vnd.kafka.v2+json' --data "{\"topics\":[\"$topic\"]}" "$instance/subscription"
records='[]'
for _ in $(seq 20); do
    records=$(ask -X GET -H 'Accept: application/vnd.kafka.json.v2+json' "$instance/records")
    [ "$records" = '[]' ] || break
done
for field in "\"topic\":\"$topic\"" '"key":null' '"value":{"foo":"bar"}' '"offset":0'; do
    [[ $records == *"$field"* ]] || check 'a record' "$records" "one with $field"
done
ask -X DELETE -H 'Content-Type: application/vnd.kafka.v2+json' "$instance"
[[ $(ask "$url/topics") == *"\"$topic\""* ]] || check 'topics' 'without it' "$topic"
[[ $(ask "$url/topics/$topic") == *'"partitions":'* ]] || check 'a topic' 'without partitions' 'with them'

# Version 2, binary, with a key.
ask -X POST -H 'Content-Type: application/vnd.kafka.binary.v2+json' \
    --data '{"records":[{"key":"a2V5","value":"Y29uZmx1ZW50"},{"value":"a2Fma2E=","partition":0}]}' \
    "$url/topics/$topic-binary" >/dev/null

# Version 3: the cluster, its topics, and records with headers.
cluster=$(ask "$url/v3/clusters" | grep --only-matching --max-count=1 '"cluster_id":"[^"]*"' | head -1 | cut -d '"' -f 4)
ask -X POST -H 'Content-Type: application/json' \
    --data "{\"topic_name\": \"$topic-3\", \"partitions_count\": 2}" "$url/v3/clusters/$cluster/topics" >/dev/null
found=$(ask -X POST -H 'Content-Type: application/json' --data '{
    "partition_id": 1,
    "headers": [{"name": "Header-1", "value": "SGVhZGVyLTE="}],
    "key": {"type": "BINARY", "data": "Zm9vYmFy"},
    "value": {"type": "JSON", "data": {"foo": "bar"}}
}' "$url/v3/clusters/$cluster/topics/$topic-3/records")
for field in '"error_code":200' "\"topic_name\":\"$topic-3\"" '"partition_id":1' '"offset":0'; do
    [[ $found == *"$field"* ]] || check 'a record' "$found" "one with $field"
done
# Two records in one body, as a stream of documents.
found=$(printf '{"value": {"type": "JSON", "data": %d}}\n' 1 2 | ask -X POST -H 'Content-Type: application/json' \
    -H 'Transfer-Encoding: chunked' -T - "$url/v3/clusters/$cluster/topics/$topic-3/records")
check 'receipts' "$(grep --only-matching '"error_code":200' <<<"$found" | wc -l)" 2
ask -X DELETE "$url/v3/clusters/$cluster/topics/$topic-3"

check 'a topic that is not there' "$(status "${key[@]}" "$url/topics/$topic-none")" 404

if [ -n "${CORKBOARD_KEY-}" ]; then
    of_topic=(--header 'Content-Type: application/json' --data '{"records":[{"value":"refused"}]}' "$url/topics/$topic")
    id=${CORKBOARD_KEY%%.*}
    check 'no key' "$(status "${of_topic[@]}")" 401
    check 'a wrong key' "$(status -H "x-api-key: ${CORKBOARD_KEY}x" "${of_topic[@]}")" 401
    check "an id with another's secret" "$(status --user "$id:${CORKBOARD_OTHER_KEY#*.}" "${of_topic[@]}")" 401
    check 'a key in the query' "$(status "${of_topic[@]}?x-api-key=$CORKBOARD_KEY")" 401
    check 'a key that may not' "$(status -H "x-api-key: $CORKBOARD_OTHER_KEY" "${of_topic[@]}")" 403
    check 'a key that may look' "$(status -H "x-api-key: $CORKBOARD_OTHER_KEY" "$url/topics/$topic")" 200
    check 'as a header' "$(status -H "x-api-key: $CORKBOARD_KEY" "${of_topic[@]}")" 200
    check 'as a password' "$(status --user "$id:${CORKBOARD_KEY#*.}" "${of_topic[@]}")" 200
fi
echo 'curl: all claims hold'
