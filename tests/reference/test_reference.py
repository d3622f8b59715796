"""The reference's own tests: `python -m unittest discover tests/reference`.

Rows here are made up. The tests over published runs need their rows, whose folder is named by
CORKBOARD_REAL_ROWS; where it is not set they are shown as skipped, and `cargo xtask test`
counts them by their names, `test_real_rows_…`.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import duckdb
import pyarrow as pa
from deltalake import write_deltalake

import cleaning
import delta_check
import peer
from answers import answer_all, differences
from reference import check_views

HERE = Path(__file__).parent
VIEWS = HERE.parent.parent / "views"

PIN = {"index": 1, "unique_id": "a", "follower_count": "1k", "category": "art"}


def cleaned(stream, *rows, dedup="off"):
    """The clean rows, as dictionaries in their order, of raw rows of one stream."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    records = dict.fromkeys(cleaning.COLUMNS, ()) | {stream: [("t", 0, n, line) for n, line in enumerate(lines)]}
    rows = cleaning.clean(records, dedup).sql(f'SELECT * FROM "{stream}" ORDER BY _offset, _nth')
    return rows.to_arrow_table().to_pylist()


class Cleaning(unittest.TestCase):
    def test_counts_are_read_by_their_unit(self):
        cases = [
            ("0", 0),
            ("999", 999),
            ("124k", 124_000),
            ("15M", 15_000_000),
            (" 1.2k ", 1_200),
            ("1.2345k", 1_234),
            ("2.5 M", 2_500_000),
            ("3b", 3_000_000_000),
            ("0.29", 0),
            ("-1", None),
            ("1.k", None),
            ("1,000", None),
            ("many", None),
            ("99999999999999999999", None),
            ("User Info Error", None),
        ]
        found = cleaned("pin", *(PIN | {"follower_count": text} for text, _ in cases))
        self.assertEqual([(text, row["follower_count"]) for (text, _), row in zip(cases, found, strict=True)], cases)

    def test_every_spelling_of_a_time_is_the_same_second(self):
        texts = [
            "2020-08-28T03:52:47",
            "2020-08-28 03:52:47",
            "2020:08:28 03:52:47",
            "20200828035247",
            "08/28/2020, 03:52:47",
            "2020-08-28T03:52:47.000+0000",
            "2020-08-28T03:52:47.999",
            "2020-08-28T03:52:47Z",
            "2020-08-28 05:52:47+02:00",
            "2020:08:27 22:22:47.5 -0530",
            "\t2020-08-28 03:52:47\n",
        ]
        others = ["yesterday", "2020-08-28", "2020-13-28 03:52:47", "28/08/2020, 03:52:47"]
        found = cleaned("geo", *({"ind": 1, "timestamp": text} for text in texts + others))
        found = [(text, str(row["timestamp"])) for text, row in zip(texts + others, found, strict=True)]
        expected = [(text, "2020-08-28 03:52:47") for text in texts] + [(text, "None") for text in others]
        self.assertEqual(found, expected)

    def test_placeholders_and_blank_texts_are_null_and_other_texts_are_kept(self):
        cases = [
            ("title", "No Title Data Available", None),
            ("title", " \n", None),
            ("title", "Untitled ", "Untitled "),
            ("description", "No description available", None),
            ("description", "No description available Story format", None),
            ("poster_name", "User Info Error", None),
            ("tag_list", "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e", None),
            ("image_src", "Image src error.", None),
            ("image_src", "Image src error", "Image src error"),
            ("save_location", "Local save in /data/art", "/data/art"),
            ("save_location", "see Local save in /data/art", "see Local save in /data/art"),
        ]
        found = cleaned("pin", *(PIN | {column: text} for column, text, _ in cases))
        found = [(column, text, row[column]) for (column, text, _), row in zip(cases, found, strict=True)]
        self.assertEqual(found, cases)

    def test_a_name_is_what_there_is_of_it(self):
        cases = [("Ann ", " Lee", "Ann Lee"), ("Ann", "", "Ann"), (None, "Lee", "Lee"), ("", " ", None)]
        found = cleaned("user", *({"ind": 1, "first_name": first, "last_name": last} for first, last, _ in cases))
        self.assertEqual([row["user_name"] for row in found], [expected for _, _, expected in cases])

    def test_rows_are_found_in_every_wrapping(self):
        row = {"ind": 7, "country": "Peru"}
        text = json.dumps(row)
        in_base64 = base64.b64encode(text.encode()).decode()
        values = [row, [row], {"value": row}, text, in_base64, [{"value": text}], [[[[row]]]]]
        found = cleaned("geo", *map(json.dumps, values))
        self.assertEqual([(r["_offset"], r["ind"], r["country"]) for r in found], [(n, 7, "Peru") for n in range(7)])
        self.assertEqual(cleaned("geo", "", "7", "null", '"text"', "{", "[]", f"[[[[[{text}]]]]]"), [])

    def test_a_row_without_its_number_or_key_is_left_out(self):
        self.assertEqual(cleaned("user", PIN), [])
        unread = [PIN | {"index": text} for text in ["12.5", "12.", "1e3", "", None]]
        self.assertEqual(cleaned("pin", {"index": 1}, {"unique_id": "a"}, *unread), [])
        found = cleaned("pin", *(PIN | {"index": text} for text in [12, "12.0", " -7 "]))
        self.assertEqual([row["ind"] for row in found], [12, 12, -7])

    def test_coordinates_are_finite_numbers_latitude_first(self):
        cases = [(-88.8298, -88.8298), ("1e3", 1000.0), ("nan", None), ("1e400", None), ("x", None)]
        found = cleaned("geo", *({"ind": 1, "latitude": latitude, "longitude": 7} for latitude, _ in cases))
        self.assertEqual([row["coordinates"] for row in found], [[expected, 7.0] for _, expected in cases])

    def test_the_first_row_of_a_key_counts(self):
        rows = [PIN, PIN | {"title": "later"}, PIN]
        for dedup, expected in [("off", [None, "later", None]), ("exact", [None, "later"]), ("key", [None])]:
            found = cleaned("pin", *rows, dedup=dedup)
            self.assertEqual([row["title"] for row in found], expected, dedup)


class Landing(unittest.TestCase):
    def test_objects_are_read_at_the_offsets_of_their_names(self):
        with tempfile.TemporaryDirectory() as folder:
            for topic, start, rows in [
                ("0a.geo", 0, [5, 6]),
                ("0a.geo", 2, [7]),
                ("0a.user", 0, [8]),
                ("streaming-0a-geo", 9, [5]),
            ]:
                target = Path(folder) / "topics" / topic / "partition=1"
                target.mkdir(parents=True, exist_ok=True)
                lines = "".join(json.dumps({"ind": ind}) + "\n" for ind in rows)
                (target / f"{topic}+1+{start:010}.json").write_text(lines)
            (Path(folder) / "corkboard.json").write_text('{"format":1}')
            found = [record[:3] for record in cleaning.records_of_landing(folder, "geo")]
            self.assertEqual(found, [("0a.geo", 1, 0), ("0a.geo", 1, 1), ("0a.geo", 1, 2), ("streaming-0a-geo", 1, 9)])


class Answers(unittest.TestCase):
    def setUp(self):
        self.connection = cleaning.clean(made_up_records())
        self.answers = answer_all(self.connection)

    def test_ties_are_kept_and_medians_are_the_lower_ones(self):
        self.assertEqual(self.answers["most_popular_category_per_country"], [["Peru", "art", 2], ["Peru", "travel", 2]])
        self.assertEqual(self.answers["median_follower_count_per_age_group"], [["18-24", 1], ["50+", None]])
        self.assertEqual(self.answers["user_with_most_followers_per_country"], [["Peru", "d", 10], ["Peru", "e", 10]])
        self.assertEqual(self.answers["country_of_user_with_most_followers"], [["Peru", 10]])
        self.assertEqual(self.answers["new_users_per_year"], [[2016, 3]])
        self.assertEqual(self.answers["posts_of_users_joined_per_year"], [[2016, 6]])
        self.assertEqual(
            self.answers["most_popular_category_per_year"],
            [[2020, "art", 1], [2020, "travel", 1], [2021, "art", 1], [2021, "food", 1], [2022, "travel", 1]],
        )
        self.assertEqual(
            self.answers["median_follower_count_per_post_year_and_age_group"],
            [["18-24", 2017, 1], ["18-24", 2020, 0]],
        )

    def test_the_sql_files_answer_the_same(self):
        self.assertEqual(check_views(self.connection, self.answers, VIEWS), [])
        nothing = cleaning.clean(dict.fromkeys(cleaning.COLUMNS, ()))
        self.assertEqual(check_views(nothing, answer_all(nothing), VIEWS), [])

    def test_tables_are_checked_by_their_rows_and_views(self):
        with tempfile.TemporaryDirectory() as folder:
            landing, tables = Path(folder, "landing"), Path(folder, "tables")
            for stream, records in made_up_records().items():
                lines = "".join(line + "\n" for _, _, _, line in records)
                landing.mkdir(exist_ok=True)
                (landing / f"{stream}+0+0000000000.json").write_text(lines)
                clean = self.connection.sql(f'SELECT * FROM "{stream}"').to_arrow_table()
                write_deltalake(tables / "batch" / stream, clean)
            for view, rows in self.answers.items():
                columns = {f"c{i}": list(column) for i, column in enumerate(zip(*rows))}
                write_deltalake(tables / "views" / view, pa.table(columns))
            command = [sys.executable, HERE / "delta_check.py", tables, "--landing", landing]
            equal = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(equal.returncode, 0, equal.stderr)

            wrong = pa.table({"c0": ["art"], "c1": [9]})
            write_deltalake(tables / "views" / "posts_per_category", wrong, mode="overwrite")
            clean = self.connection.sql('SELECT * REPLACE (age + 1 AS age) FROM "user" LIMIT 1').to_arrow_table()
            write_deltalake(tables / "batch" / "user", clean, mode="append")
            differs = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(differs.returncode, 1)
            self.assertIn("posts_per_category: ", differs.stderr)
            self.assertIn("batch table user: 1 rows extra", differs.stderr)

    def test_a_difference_is_named(self):
        other = self.answers | {"posts_per_category": [["art", 99]]}
        [sentence] = differences(self.answers, other)
        self.assertIn("posts_per_category", sentence)

    def test_a_folder_without_tables_is_a_finding(self):
        with tempfile.TemporaryDirectory() as folder:
            problems = []
            self.assertEqual(delta_check.open_tables(Path(folder), problems), {})
            (Path(folder) / "pin" / "_delta_log").mkdir(parents=True)
            delta_check.open_tables(Path(folder), problems)
            self.assertEqual(len(problems), 1)


# One post per line. Two categories share the first place and two posters the most followers;
# the known counts of the young are 0, 1, 1, 10; the oldest has posted nothing with a known
# count, and one person is too young for any age group.
MADE_UP = [
    # poster, followers, category, age, year of the post
    ("a", "0", "art", 20, 2020),
    ("b", "1", "art", 20, 2021),
    ("c", "x", "travel", 60, 2022),
    ("d", "10", "travel", 20, 2020),
    ("e", "10", "food", 17, 2021),
    ("f", "1", "quotes", 20, 2017),
]


def made_up_records():
    rows = {"pin": [], "geo": [], "user": []}
    for n, (poster, followers, category, age, year) in enumerate(MADE_UP):
        pin = {"index": n, "unique_id": f"u{n}", "poster_name": poster, "follower_count": followers}
        rows["pin"].append(pin | {"category": category})
        rows["geo"].append({"ind": n, "timestamp": f"{year}-12-31 23:59:59", "country": "Peru"})
        name = {"first_name": "Ann", "last_name": "Lee", "date_joined": "2016-05-06 07:08:09"}
        rows["user"].append({"ind": n, "age": age} | name)
    return {stream: [(stream, 0, n, json.dumps(row)) for n, row in enumerate(made)] for stream, made in rows.items()}


@unittest.skipUnless("CORKBOARD_REAL_ROWS" in os.environ, "needs the real rows")
class Published(unittest.TestCase):
    def test_real_rows_give_the_published_answers(self):
        rows = Path(os.environ["CORKBOARD_REAL_ROWS"])
        command = [sys.executable, HERE / "reference.py", "golden", rows / "golden", "--views", VIEWS]
        result = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_real_rows_answer_the_same_by_the_sql_files(self):
        rows = Path(os.environ["CORKBOARD_REAL_ROWS"])
        for dedup in ["off", "exact", "key"]:
            raw = {stream: cleaning.records_of_file(rows / f"{stream}.jsonl") for stream in cleaning.COLUMNS}
            connection = cleaning.clean(raw, dedup)
            self.assertEqual(check_views(connection, answer_all(connection), VIEWS), [], dedup)


class Peer(unittest.TestCase):
    def test_cheap_expressions_follow_the_rules(self):
        for cheap, rule, texts in [
            (peer.whole_number, cleaning.whole_number, ["12", "007", "12.0", "12.5", "-3", " 4 ", "1e3", "9" * 19, "x"]),
            (peer.count, cleaning.count, ["0", "12", "3k", "3M", "1.5k", "2b", " 4k ", "3K", "k", "M3", "9" * 13 + "M"]),
            (peer.number, cleaning.number, ["12", "-3.25", "+1", ".5", "1e3", "9" * 400, " 4 ", "nan", "1.", "x"]),
            (
                peer.moment,
                cleaning.time,
                ["2020-08-28T03:52:47", "2020-08-28 03:52:47", "2020:08:28 03:52:47", "2020-13-28T03:52:47"]
                + ["20200828035247", "2020-08-28T03:52:47Z", "2020-08-28T03:52:47+01:30", "2020-08-28T03:52+01", "x"],
            ),
        ]:
            connection = duckdb.connect()
            connection.execute("CREATE TABLE t AS SELECT unnest(?::VARCHAR[]) AS c", [texts])
            rows = connection.sql(f"SELECT c, {cheap('c')}, {rule('c')} FROM t").fetchall()
            for text, by_cheap, by_rule in rows:
                self.assertEqual(by_cheap, by_rule, text)
            self.assertTrue(any(by_rule is not None for _, _, by_rule in rows))

    def test_answers_are_those_of_the_reference(self):
        pins = [PIN | {"index": n, "unique_id": str(n), "follower_count": f"{n}k"} for n in range(8)]
        geos = [{"ind": n, "timestamp": f"201{n}-02-03T04:05:06", "latitude": 1, "country": "Fiji"} for n in range(8)]
        users = [{"ind": n, "first_name": " A ", "age": 20 + n, "date_joined": f"201{n}-01-01T00:00:00"} for n in range(8)]
        with tempfile.TemporaryDirectory() as folder:
            landing = Path(folder, "landing")
            for stream, rows in [("pin", pins + pins[:3]), ("geo", geos), ("user", users + users)]:
                partition = landing / "topics" / f"a.{stream}" / "partition=0"
                partition.mkdir(parents=True)
                lines = "".join(json.dumps(row) + "\n" for row in rows)
                (partition / f"a.{stream}+0+0000000000.json").write_text(lines, encoding="utf-8")
            by_peer = peer.run(landing, Path(folder), VIEWS, threads=1)
            records = {stream: cleaning.records_of_landing(landing, stream) for stream in cleaning.COLUMNS}
            expected = answer_all(cleaning.clean(records))
        actual = {view: [list(row.values()) for row in rows] for view, rows in by_peer.items()}
        self.assertEqual(differences(expected, actual), [])


if __name__ == "__main__":
    unittest.main()
