#!/usr/bin/env python3
"""Reads the tables of a Corkboard data folder as a stranger would, and recomputes its views.

    delta_check.py TABLES [--dedup off|exact|key] [--require batch,realtime,views] [--landing FOLDER]

TABLES holds `batch/`, `realtime/` and `views/`, one Delta table per folder below them. Every
table is opened with delta-rs's Python package and its rows are counted; then the thirteen
answers are calculated by DuckDB from `batch/{pin,geo,user}` and compared with `views/*`. With
`--landing` the landing objects are cleaned anew, and the batch tables must hold exactly those
rows; this is meant for a folder whose landing objects are all in the batch tables. Exits with 1
when a table does not open, a required layer is missing, or anything differs.
"""

import argparse
import json
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

import cleaning
from answers import answer_all, differences

LAYERS = ["batch", "realtime", "views"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--dedup", choices=["off", "exact", "key"], default="key")
    parser.add_argument("--require", default="batch,views", help="layers that must be there, comma-separated")
    parser.add_argument("--landing", type=Path, help="landing objects that the batch tables were made from")
    arguments = parser.parse_args()

    problems = []
    tables = {layer: open_tables(arguments.tables / layer, problems) for layer in LAYERS}
    for layer in filter(None, arguments.require.split(",")):
        if not tables.get(layer):
            problems.append(f"{arguments.tables / layer} holds no Delta table")
    counts = {layer: {name: table.num_rows for name, table in found.items()} for layer, found in tables.items()}
    print(json.dumps(counts, indent=2))
    if set(cleaning.COLUMNS) <= set(tables["batch"]) and tables["views"]:
        problems += compare_views(tables["batch"], tables["views"], arguments.dedup)
    if arguments.landing:
        problems += compare_rows(tables["batch"], arguments.landing)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def open_tables(folder, problems):
    """The Delta tables directly below a folder, as Arrow tables by name."""
    tables = {}
    for path in sorted(path.parent for path in folder.glob("*/_delta_log")):
        try:
            tables[path.name] = pa.table(DeltaTable(str(path)).to_pyarrow_table())
        except Exception as error:  # any failure of a foreign reader is the finding itself
            problems.append(f"{path} does not open: {error}")
    return tables


def compare_rows(batch, landing):
    """One sentence per batch table whose rows are not those of the landing objects."""
    records = {stream: cleaning.records_of_landing(landing, stream) for stream in cleaning.COLUMNS}
    connection = cleaning.clean(records, "off")
    problems = []
    for stream in cleaning.COLUMNS:
        if stream not in batch:
            problems.append(f"there is no batch table {stream}")
            continue
        connection.register("delta", batch[stream])
        names = ", ".join(f'"{name}"' for name in connection.table(f'"{stream}"').columns)
        for what, left, right in [("missing", f'"{stream}"', "delta"), ("extra", "delta", f'"{stream}"')]:
            rows = connection.sql(f"SELECT {names} FROM {left} EXCEPT ALL SELECT {names} FROM {right}").fetchall()
            if rows:
                problems.append(f"batch table {stream}: {len(rows)} rows {what}, such as {rows[0]}")
    return problems


def compare_views(batch, views, dedup):
    connection = duckdb.connect()
    for stream in cleaning.COLUMNS:
        connection.register("delta", batch[stream])
        connection.execute(f'CREATE TABLE "{stream}" AS SELECT {clean_columns(batch[stream])} FROM delta')
        cleaning.deduplicate(connection, stream, dedup)
    expected = answer_all(connection)
    actual = {view: [list(row.values()) for row in table.to_pylist()] for view, table in views.items()}
    # A table has no order of its own, so that rows are compared as sets.
    return differences(*({view: sorted(rows, key=repr) for view, rows in side.items()} for side in (expected, actual)))


def clean_columns(table):
    """All columns but the product's own, of which only the position is known here."""
    names = [name for name in table.column_names if not name.startswith("_") or name in cleaning.POSITION]
    return ", ".join(f'"{name}"' for name in names)


if __name__ == "__main__":
    sys.exit(main())
