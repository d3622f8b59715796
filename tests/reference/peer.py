#!/usr/bin/env python3
"""The batch job by DuckDB alone, written to be fast: what Corkboard's speed is compared with.

    peer.py LANDING TABLES VIEWS [--threads N]

Reads the landing objects, cleans by the rules of `cleaning.py`, writes the clean tables as
Parquet, keeps one row per key and answers the SQL files of VIEWS. It prints one JSON object:
`seconds` (without Python's own start) and `answers`.

It has less to do than Corkboard: a value that is no plain object is not unwrapped, positions
are not kept, nothing is counted or explained, any row of a key may count, and nothing is
synced to the disk. Where a value has the usual form, a cheaper expression gives the result of
the rule in `cleaning.py`, which takes all others.
"""

import argparse
import json
import time
from pathlib import Path

import duckdb

import cleaning


def whole_number(column):
    is_usual = f"regexp_full_match({column}, '[0-9]{{1,18}}')"
    return f"CASE WHEN {is_usual} THEN CAST({column} AS BIGINT) ELSE {cleaning.whole_number(column)} END"


def count(column):
    usual = "[0-9]{1,12}[kM]?"
    unit = f"CASE right({column}, 1) WHEN 'k' THEN 1000 WHEN 'M' THEN 1000000 ELSE 1 END"
    value = f"CAST(rtrim({column}, 'kM') AS BIGINT) * {unit}"
    return f"CASE WHEN regexp_full_match({column}, '{usual}') THEN {value} ELSE {cleaning.count(column)} END"


def number(column):
    is_usual = f"regexp_full_match({column}, '-?[0-9]{{1,15}}([.][0-9]{{1,15}})?')"
    return f"CASE WHEN {is_usual} THEN CAST({column} AS DOUBLE) ELSE {cleaning.number(column)} END"


def moment(column):
    value = f"TRY_CAST({column} AS TIMESTAMP)"
    is_usual = f"{column} LIKE '____-__-__T__:__:__' AND {value} IS NOT NULL"
    return f"CASE WHEN {is_usual} THEN {value} ELSE {cleaning.time(column)} END"


CLEAN = {
    "pin": f"""
        SELECT {whole_number('"index"')} AS ind, unique_id, title, description,
            {count("follower_count")} AS follower_count, poster_name, tag_list, is_image_or_video, image_src,
            CASE WHEN starts_with(save_location, 'Local save in ') THEN substr(save_location, 15)
                ELSE save_location END AS save_location, category
        FROM raw_pin""",
    "geo": f"""
        SELECT {whole_number("ind")} AS ind, country,
            [{number("latitude")}, {number("longitude")}] AS coordinates,
            {moment("timestamp")} AS timestamp
        FROM raw_geo""",
    "user": f"""
        SELECT {whole_number("ind")} AS ind,
            CASE WHEN first_name IS NULL THEN trim(last_name) WHEN last_name IS NULL THEN trim(first_name)
                ELSE trim(first_name) || ' ' || trim(last_name) END AS user_name,
            {whole_number("age")} AS age, {moment("date_joined")} AS date_joined
        FROM raw_user""",
}
# What views ask of each stream: other columns are only written.
ASKED = {
    "pin": ["ind", "unique_id", "poster_name", "follower_count", "category"],
    "geo": ["ind", "country", "timestamp"],
    "user": ["ind", "user_name", "age", "date_joined"],
}


def known(name, placeholders):
    """A field as text; NULL for blank text and for a placeholder. What sorts before `!` is all
    that can be blank, and hardly anything else."""
    column = f'"{name}"'
    value = column
    for placeholder in placeholders:
        value = f"NULLIF({value}, '{placeholder}')"
    return f"CASE WHEN {column} < '!' AND {cleaning.stripped(column)} = '' THEN NULL ELSE {value} END AS {column}"


def read(landing, stream):
    """The raw rows of a stream, every field as text."""
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in cleaning.COLUMNS[stream])
    fields = ", ".join(known(name, cleaning.PLACEHOLDERS.get(name, [])) for name in cleaning.COLUMNS[stream])
    objects = landing / "topics" / f"*.{stream}" / "partition=*" / "*.json"
    source = f"read_json('{objects}', format = 'newline_delimited', columns = {{{columns}}}, hive_partitioning = false)"
    return f"SELECT {fields} FROM {source}"


def run(landing, tables, views, threads):
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET preserve_insertion_order = false")
    for stream, key in cleaning.KEYS.items():
        required = f'ind IS NOT NULL AND "{key}" IS NOT NULL'
        connection.execute(f"CREATE VIEW raw_{stream} AS {read(landing, stream)}")
        file = tables / f"{stream}.parquet"
        connection.execute(f"COPY (SELECT * FROM ({CLEAN[stream]}) WHERE {required}) TO '{file}' (FORMAT parquet)")
        asked = ", ".join(f'"{name}"' for name in ASKED[stream])
        rows = f"SELECT DISTINCT ON (\"{key}\") {asked} FROM '{file}'"
        connection.execute(f'CREATE TABLE "{stream}" AS {rows}')
    return {path.stem: answer(connection, path) for path in sorted(views.glob("*.sql"))}


def answer(connection, path):
    relation = connection.sql(path.read_text(encoding="utf-8"))
    return [dict(zip(relation.columns, row)) for row in relation.fetchall()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("landing", type=Path)
    parser.add_argument("tables", type=Path, help="an empty folder for the clean tables")
    parser.add_argument("views", type=Path, help="a folder of SQL files")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    begin = time.monotonic()
    answers = run(arguments.landing, arguments.tables, arguments.views, arguments.threads)
    print(json.dumps({"seconds": time.monotonic() - begin, "answers": answers}, default=str))


if __name__ == "__main__":
    main()
