#!/usr/bin/env python3
"""Answers the thirteen questions from raw rows, independently of Corkboard.

    reference.py rows --pin FILE --geo FILE --user FILE [--dedup off|exact|key]
    reference.py landing FOLDER [--dedup off|exact|key]
    reference.py golden FOLDER

The first two print `{"view": [[...], ...]}`; with `--views FOLDER` they also run the SQL files
of that folder over the cleaned rows and fail when one answers differently. `golden` compares
with published outputs: FOLDER holds one folder per run with raw rows and `expected.json`.
"""

import argparse
import json
import sys
from pathlib import Path

import cleaning
from answers import answer_all, differences

GOLDEN_VIEWS = {
    "q1": "most_popular_category_per_country",
    "q2a": "frequency_of_posts_per_category_per_year",
    "q2b": "most_popular_category_per_year",
    "q3a": "user_with_most_followers_per_country",
    "q3b": "country_of_user_with_most_followers",
    "q4": "most_popular_category_per_age_group",
    "q5": "median_follower_count_per_age_group",
    "q6_rows": "posts_of_users_joined_per_year",
    "q6_distinct": "new_users_per_year",
    "q7": "median_follower_count_per_joining_year",
    "q8": "median_follower_count_per_joining_year_and_age_group",
    "q9": "median_follower_count_per_post_year_and_age_group",
}


def main():
    arguments = parse_arguments()
    if arguments.source == "golden":
        return golden(arguments)
    connection = cleaning.clean(records(arguments), arguments.dedup)
    expected = answer_all(connection)
    json.dump(expected, sys.stdout, ensure_ascii=False)
    print()
    return report("views", check_views(connection, expected, arguments.views)) if arguments.views else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = parser.add_subparsers(dest="source", required=True)
    rows = sources.add_parser("rows", help="files of raw rows, one JSON value per line")
    for stream in cleaning.COLUMNS:
        rows.add_argument(f"--{stream}", type=Path, required=True)
    landing = sources.add_parser("landing", help="a folder of landing objects")
    landing.add_argument("folder", type=Path)
    published = sources.add_parser("golden", help="runs with published outputs")
    published.add_argument("folder", type=Path)
    for source in (rows, landing):
        source.add_argument("--dedup", choices=["off", "exact", "key"], default="key")
    for source in (rows, landing, published):
        source.add_argument("--views", type=Path, help="folder of SQL files to compare with")
    return parser.parse_args()


def records(arguments):
    if arguments.source == "landing":
        return {stream: cleaning.records_of_landing(arguments.folder, stream) for stream in cleaning.COLUMNS}
    return {stream: cleaning.records_of_file(getattr(arguments, stream)) for stream in cleaning.COLUMNS}


def golden(arguments):
    runs = sorted(path.parent for path in arguments.folder.glob("*/expected.json"))
    if not runs:
        sys.exit(f"{arguments.folder} holds no run with an expected.json")
    return max(golden_run(run, arguments.views) for run in runs)


def golden_run(run, views):
    published = json.loads((run / "expected.json").read_text(encoding="utf-8"))
    dedup = "exact" if published["dedup_exact_rows_first"] else "off"
    raw = {stream: cleaning.records_of_file(run / f"{stream}.jsonl") for stream in cleaning.COLUMNS}
    connection = cleaning.clean(raw, dedup)
    answers = answer_all(connection)
    expected = {GOLDEN_VIEWS[name]: rows for name, rows in published["recomputed_reference"].items()}
    found = differences(expected, {view: answers[view] for view in expected})
    if views:
        found += check_views(connection, answers, views)
    return report(f"{run.name} ({dedup}, {len(expected)} answers)", found)


def check_views(connection, expected, folder):
    """Runs each SQL file in DuckDB and compares with the answers."""
    actual = {}
    for path in sorted(folder.glob("*.sql")):
        actual[path.stem] = [list(row) for row in connection.sql(path.read_text(encoding="utf-8")).fetchall()]
    return differences(expected, actual)


def report(subject, found):
    for sentence in found:
        print(f"{subject}: {sentence}", file=sys.stderr)
    print(f"{subject}: {'differs' if found else 'equal'}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
