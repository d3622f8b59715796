#!/usr/bin/env python3
"""Answers, line by line, what a changing pipeline should answer now.

Each line of standard input is a JSON object: `ledger`, a file with one `[topic, partition,
offset, line]` per record that is in the log; `dedup`; `rules`, `[stream, SELECT … FROM clean]`
pairs by which cleaning differs from the default; `questions`, views beside the thirteen or in
place of them, as DuckDB's SQL. Each line of standard output is `{"view": [[...], ...]}`.
"""

import json
import sys

import cleaning
from answers import QUESTIONS, answer_all


def records_of_ledger(path):
    """`{stream: [(topic, partition, offset, line), ...]}`"""
    records = {stream: [] for stream in cleaning.COLUMNS}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = tuple(json.loads(line))
            records[cleaning.stream_of(record[0])].append(record)
    return records


def main():
    for line in sys.stdin:
        asked = json.loads(line)
        connection = cleaning.clean(records_of_ledger(asked["ledger"]), asked["dedup"], asked["rules"])
        print(json.dumps(answer_all(connection, QUESTIONS | asked["questions"])), flush=True)


if __name__ == "__main__":
    main()
