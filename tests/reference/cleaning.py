"""Raw posts to the clean tables `pin`, `geo` and `user`, independently of Corkboard.

The rules are written here a second time, in DuckDB's SQL and from the rules' text, so that a
mistake in `streams/*.sql` or in the engine's functions cannot hide. Nothing of the product is
read. What the product counts or explains (values lost to NULL, reasons of rejects) is not
modelled: a row that lacks its number or its key is only left out.
"""

import base64
import binascii
import gzip
import json
from pathlib import Path

import duckdb
import pyarrow as pa

COLUMNS = {
    "pin": [
        "index",
        "unique_id",
        "title",
        "description",
        "poster_name",
        "follower_count",
        "tag_list",
        "is_image_or_video",
        "image_src",
        "downloaded",
        "save_location",
        "category",
    ],
    "geo": ["ind", "timestamp", "latitude", "longitude", "country"],
    "user": ["ind", "first_name", "last_name", "age", "date_joined"],
}

PLACEHOLDERS = {
    "title": ["No Title Data Available"],
    "description": ["No description available Story format", "No description available"],
    "poster_name": ["User Info Error"],
    "follower_count": ["User Info Error"],
    "tag_list": ["N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e"],
    "image_src": ["Image src error."],
}

KEYS = {"pin": "unique_id", "geo": "ind", "user": "ind"}
POSITION = ["_topic", "_partition", "_offset", "_nth"]


def stripped(column):
    return f"trim({column}, E' \\t\\r\\n')"


def whole_number(column):
    """`12` and `12.0` are 12; `12.5` is nothing."""
    return f"TRY_CAST(regexp_extract({stripped(column)}, '^([+-]?\\d+)(\\.0+)?$', 1) AS BIGINT)"


def number(column):
    """A finite decimal number; `nan` and `inf` are words."""
    decimal = "^[+-]?(\\d+\\.?\\d*|\\.\\d+)([eE][+-]?\\d+)?$"
    value = f"TRY_CAST({stripped(column)} AS DOUBLE)"
    return f"CASE WHEN regexp_matches({stripped(column)}, '{decimal}') AND isfinite({value}) THEN {value} END"


def count(column):
    """`1.5k` is 1500: the decimal number times its unit, without its fraction."""
    pattern = "^(\\d+)(?:\\.(\\d+))?\\s*([kKmMbB])?$"
    part = lambda group: f"regexp_extract({stripped(column)}, '{pattern}', {group})"
    unit = f"CASE lower({part(3)}) WHEN 'k' THEN 1000 WHEN 'm' THEN 1000000 WHEN 'b' THEN 1000000000 ELSE 1 END"
    billionths = f"CAST(rpad(left({part(2)}, 9), 9, '0') AS HUGEINT)"
    return f"""CASE WHEN {part(1)} <> '' THEN
        TRY_CAST(TRY_CAST({part(1)} AS BIGINT)::HUGEINT * {unit} + {billionths} * {unit} // 1000000000 AS BIGINT)
    END"""


def time(column):
    """Every spelling that the posting programs use, to the second. A fraction and an offset
    may follow: the one is dropped, the other applied."""
    formats = ["%Y:%m:%d %H:%M:%S", "%Y%m%d%H%M%S", "%m/%d/%Y, %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]
    pattern = "^(.*?)(?:\\.\\d+)?\\s*([Zz]|([+-])(\\d{2}):?(\\d{2})?)?$"
    part = lambda group: f"regexp_extract({stripped(column)}, '{pattern}', {group})"
    minutes = f"coalesce(TRY_CAST({part(4)} AS INTEGER) * 60, 0) + coalesce(TRY_CAST({part(5)} AS INTEGER), 0)"
    east = f"CASE {part(3)} WHEN '-' THEN -1 ELSE 1 END * ({minutes})"
    return f"try_strptime({part(1)}, {formats}) - to_minutes({east})"


CLEAN = {
    "pin": f"""
        SELECT {whole_number('"index"')} AS ind, unique_id, title, description,
            {count("follower_count")} AS follower_count, poster_name, tag_list, is_image_or_video, image_src,
            regexp_replace(save_location, '^Local save in ', '') AS save_location, category, {", ".join(POSITION)}
        FROM raw_pin""",
    "geo": f"""
        SELECT {whole_number("ind")} AS ind, country,
            [{number("latitude")}, {number("longitude")}] AS coordinates,
            {time("timestamp")} AS timestamp, {", ".join(POSITION)}
        FROM raw_geo""",
    "user": f"""
        SELECT {whole_number("ind")} AS ind,
            CASE WHEN first_name IS NULL THEN trim(last_name) WHEN last_name IS NULL THEN trim(first_name)
                ELSE trim(first_name) || ' ' || trim(last_name) END AS user_name,
            {whole_number("age")} AS age, {time("date_joined")} AS date_joined, {", ".join(POSITION)}
        FROM raw_user""",
}


class NumberText(str):
    """A JSON number as it was written."""


def parse(text):
    return json.loads(text, parse_int=NumberText, parse_float=NumberText, parse_constant=NumberText)


def unwrap(value, columns, wrappings=4):
    """The rows in one record's value: an object, `{"value": object}`, a list of objects, or
    any of these as a JSON text or as the base64 of one."""
    if wrappings < 0:
        return []
    if isinstance(value, dict):
        is_wrapper = "value" in value and not any(name in value for name in columns)
        return unwrap(value["value"], columns, wrappings - 1) if is_wrapper else [value]
    if isinstance(value, list):
        return [row for item in value for row in unwrap(item, columns, wrappings - 1)]
    if isinstance(value, str) and not isinstance(value, NumberText):
        for text in (lambda: value, lambda: base64.b64decode(value, validate=True).decode()):
            try:
                return unwrap(parse(text()), columns, wrappings - 1)
            except (ValueError, binascii.Error):
                continue
    return []


def text_of(value):
    """A field as text; None for null and for blank text."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return str(value) if value.strip() else None


def rows_of_line(line, columns):
    try:
        return unwrap(parse(line), columns)
    except ValueError:
        return []


def records_of_file(path):
    """(topic, partition, offset, line) of a plain file of rows."""
    with open(path, encoding="utf-8") as lines:
        for offset, line in enumerate(lines):
            yield path.stem, 0, offset, line


def records_of_landing(folder, stream):
    """(topic, partition, offset, line) of the landing objects of one stream. An object is
    named by its first offset, and its lines follow one another."""
    for path in sorted(Path(folder).rglob("*+*+*.json")) + sorted(Path(folder).rglob("*+*+*.json.gz")):
        topic, partition, start = path.name.removesuffix(".gz").removesuffix(".json").rsplit("+", 2)
        if stream_of(topic) == stream:
            opened = gzip.open if path.suffix == ".gz" else open
            with opened(path, "rt", encoding="utf-8") as lines:
                for n, line in enumerate(lines):
                    yield topic, int(partition), int(start) + n, line


def stream_of(topic):
    if topic == "Pinterest_data":
        return "pin"
    for stream in COLUMNS:
        if topic == stream or topic.endswith(f".{stream}"):
            return stream
        if topic.startswith("streaming-") and topic.endswith(f"-{stream}"):
            return stream
    return None


def clean(records, dedup="key", rules=()):
    """A DuckDB connection with the clean tables. `records` yields (topic, partition, offset,
    line) per stream name; `dedup` is `off`, `exact` or `key`. `rules` are (stream, SELECT …
    FROM clean) pairs by which definitions differ from the default ones. Rows that are left out
    stand in `pin_rejected` and so on, by their positions."""
    connection = duckdb.connect()
    for stream, columns in COLUMNS.items():
        connection.register(f"raw_{stream}", raw_table(columns, records[stream]))
        required = "ind IS NOT NULL AND unique_id IS NOT NULL" if stream == "pin" else "ind IS NOT NULL"
        rows = f"SELECT * FROM ({CLEAN[stream]}) WHERE {required}"
        for _, rule in (rule for rule in rules if rule[0] == stream):
            rows = f"WITH clean AS ({rows}) {rule}"
        connection.execute(f'CREATE TABLE "{stream}" AS {rows}')
        position = ", ".join(POSITION)
        connection.execute(
            f"""CREATE TABLE {stream}_rejected AS
            SELECT {position} FROM raw_{stream} EXCEPT SELECT {position} FROM "{stream}" """
        )
        deduplicate(connection, stream, dedup)
    return connection


def raw_table(columns, records):
    taken = {name: [] for name in columns + POSITION}
    for topic, partition, offset, line in records:
        for nth, row in enumerate(rows_of_line(line, columns)):
            for name in columns:
                text = text_of(row.get(name))
                taken[name].append(None if text in PLACEHOLDERS.get(name, []) else text)
            for name, value in zip(POSITION, (topic, partition, offset, nth)):
                taken[name].append(value)
    types = dict.fromkeys(columns + ["_topic"], pa.string()) | dict.fromkeys(POSITION[1:], pa.int64())
    return pa.table({name: pa.array(values, types[name]) for name, values in taken.items()})


def deduplicate(connection, table, dedup):
    """Keeps the first row of each key (`key`), one of equal rows (`exact`), or all (`off`)."""
    if dedup == "off":
        return
    names = [name for name in connection.table(f'"{table}"').columns if name not in POSITION]
    same = [KEYS[table]] if dedup == "key" else names
    quoted = ", ".join(f'"{name}"' for name in same)
    connection.execute(
        f"""CREATE OR REPLACE TABLE "{table}" AS SELECT * FROM "{table}"
        QUALIFY row_number() OVER (PARTITION BY {quoted} ORDER BY {", ".join(POSITION)}) = 1"""
    )
