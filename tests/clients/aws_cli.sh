#!/usr/bin/env bash
# A stream as people use it from a shell with AWS's command line (version 1, which takes data as it
# is and encodes it by itself), against a server that is running:
#
#     AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any aws_cli.sh http://127.0.0.1:8082
#
# `aws` is on the PATH. If CORKBOARD_OTHER_ID and CORKBOARD_OTHER_SECRET are those of a key that may only
# describe, the server asks for keys, and refuses wrong ones. Any claim that does not hold ends it.
set -euo pipefail

url=$1
stream="cli-$(date +%s%N)"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export AWS_DEFAULT_REGION=us-east-1 AWS_MAX_ATTEMPTS=1

kinesis() {
    aws --endpoint-url "$url" --output text kinesis "$@"
}

check() { # CLAIM FOUND EXPECTED
    if [ "$2" != "$3" ]; then
        echo "$1: '$2', not '$3'" >&2
        exit 1
    fi
}

read_shard() { # SHARD
    local iterator
    iterator=$(kinesis get-shard-iterator --stream-name "$stream" --shard-id "$1" \
        --shard-iterator-type TRIM_HORIZON --query ShardIterator)
    kinesis get-records --shard-iterator "$iterator" --query 'Records[].[Data]'
}

kinesis create-stream --stream-name "$stream" --shard-count 1
kinesis wait stream-exists --stream-name "$stream"
check 'open shards' "$(kinesis describe-stream-summary --stream-name "$stream" \
    --query 'StreamDescriptionSummary.[StreamStatus,OpenShardCount]')" $'ACTIVE\t1'

shard=$(kinesis put-record --stream-name "$stream" --partition-key a --data 'hello' --query ShardId)
check 'the first shard' "$shard" shardId-000000000000
{
    printf '['
    for i in $(seq 500); do
        printf '%s{"PartitionKey": "k%d", "Data": "record %d"}' "${comma-}" "$i" "$i"
        comma=,
    done
    printf ']'
} >"$folder/records.json"
check 'failed' "$(kinesis put-records --stream-name "$stream" --records "file://$folder/records.json" \
    --query FailedRecordCount)" 0
read_shard "$shard" >"$folder/read"
check 'records' "$(wc -l <"$folder/read")" 501
check 'the first' "$(head -1 "$folder/read" | base64 -d)" hello
check 'the last' "$(tail -1 "$folder/read" | base64 -d)" 'record 500'

kinesis split-shard --stream-name "$stream" --shard-to-split "$shard" \
    --new-starting-hash-key 170141183460469231731687303715884105728
kinesis wait stream-exists --stream-name "$stream"
check 'parents' "$(kinesis list-shards --stream-name "$stream" --query 'Shards[].ParentShardId')" "$shard"$'\t'"$shard"

refused() { # CLAIM STREAM EXPECTED
    local found
    found=$(kinesis put-record --stream-name "$2" --partition-key a --data x 2>&1) && found='not refused'
    [[ $found == *"($3)"* ]] || check "$1" "$found" "$3"
}

refused 'a stream that is not there' nowhere ResourceNotFoundException
if [ -n "${CORKBOARD_OTHER_ID-}" ]; then
    AWS_SECRET_ACCESS_KEY=wrong refused 'a wrong secret' "$stream" InvalidSignatureException
    AWS_ACCESS_KEY_ID=AKIDEXAMPLE refused 'an id that nobody has' "$stream" UnrecognizedClientException
    AWS_ACCESS_KEY_ID=$CORKBOARD_OTHER_ID AWS_SECRET_ACCESS_KEY=$CORKBOARD_OTHER_SECRET \
        refused 'a key that may not' "$stream" AccessDeniedException
fi
kinesis delete-stream --stream-name "$stream"
echo 'AWS CLI: all claims hold'
