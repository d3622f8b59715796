"""The thirteen questions, answered by DuckDB over clean tables `pin`, `geo` and `user`.

Written in another way than `views/*.sql` where there is one: medians pick from a sorted list,
first places compare with a maximum or the other way round, years come from `year()`.
"""

AGE_GROUP = """CASE WHEN u.age < 18 OR u.age IS NULL THEN NULL WHEN u.age <= 24 THEN '18-24'
    WHEN u.age <= 35 THEN '25-35' WHEN u.age <= 50 THEN '36-50' ELSE '50+' END"""
JOINING_YEAR = "year(u.date_joined)"
POST_YEAR = "year(g.timestamp)"
POSTS = "pin p JOIN geo g USING (ind)"
POSTS_OF_USERS = 'pin p JOIN "user" u USING (ind)'
POSTS_WITH_ALL = f'{POSTS} JOIN "user" u USING (ind)'


def most_popular(group, tables, where="true"):
    counts = f"SELECT {group} AS label, p.category, count(*) AS n FROM {tables} WHERE {where} GROUP BY ALL"
    return f"""WITH counts AS ({counts})
        SELECT label, category, n FROM counts c
        WHERE n = (SELECT max(n) FROM counts o WHERE o.label IS NOT DISTINCT FROM c.label) ORDER BY ALL"""


def lower_median(groups, tables, where):
    """Element number ceil(n / 2) of the sorted known values; lists count from 1."""
    known = "list_sort(list(p.follower_count) FILTER (p.follower_count IS NOT NULL))"
    labels = ", ".join(groups)
    return f"""SELECT {labels}, {known}[(len({known}) + 1) // 2] FROM {tables}
        WHERE {where} GROUP BY {labels} ORDER BY {labels}"""


AGE_KNOWN = f"{AGE_GROUP} IS NOT NULL"
JOINED = f"{JOINING_YEAR} BETWEEN 2015 AND 2020"

QUESTIONS = {
    "most_popular_category_per_country": most_popular("g.country", POSTS),
    "frequency_of_posts_per_category_per_year": f"""SELECT {POST_YEAR} AS y, p.category, count(*) AS n FROM {POSTS}
        WHERE y BETWEEN 2018 AND 2022 GROUP BY ALL ORDER BY y, n DESC, category""",
    "most_popular_category_per_year": most_popular(POST_YEAR, POSTS, f"{POST_YEAR} BETWEEN 2018 AND 2022"),
    "user_with_most_followers_per_country": f"""SELECT DISTINCT country, poster_name, follower_count FROM
        (SELECT *, rank() OVER (PARTITION BY country ORDER BY follower_count DESC) AS k FROM {POSTS}
        WHERE follower_count IS NOT NULL) WHERE k = 1 AND country IS NOT NULL ORDER BY ALL""",
    "country_of_user_with_most_followers": f"""SELECT DISTINCT country, follower_count FROM {POSTS}
        WHERE follower_count = (SELECT max(follower_count) FROM {POSTS}) ORDER BY ALL""",
    "most_popular_category_per_age_group": most_popular(AGE_GROUP, POSTS_OF_USERS, AGE_KNOWN),
    "median_follower_count_per_age_group": lower_median([AGE_GROUP], POSTS_OF_USERS, AGE_KNOWN),
    "new_users_per_year": f"""SELECT {JOINING_YEAR} AS y, count(DISTINCT (u.user_name, u.age, u.date_joined))
        FROM "user" u WHERE {JOINED} GROUP BY y ORDER BY y""",
    "posts_of_users_joined_per_year": f"""SELECT {JOINING_YEAR} AS y, count(*) FROM "user" u
        WHERE {JOINED} GROUP BY y ORDER BY y""",
    "median_follower_count_per_joining_year": lower_median([JOINING_YEAR], POSTS_OF_USERS, JOINED),
    "median_follower_count_per_joining_year_and_age_group": lower_median(
        [AGE_GROUP, JOINING_YEAR], POSTS_OF_USERS, f"{JOINED} AND {AGE_KNOWN}"
    ),
    "median_follower_count_per_post_year_and_age_group": lower_median(
        [AGE_GROUP, POST_YEAR], POSTS_WITH_ALL, f"{POST_YEAR} BETWEEN 2015 AND 2020 AND {AGE_KNOWN}"
    ),
    "posts_per_category": "SELECT category, count(*) AS n FROM pin GROUP BY category ORDER BY n DESC, category",
}

# Sorted by year first, although the age group is the first column.
BY_YEAR_FIRST = "median_follower_count_per_post_year_and_age_group"


def answer_all(connection, questions=QUESTIONS):
    """`{view: [row, ...]}`, rows in the order in which the view shows them."""
    answers = {}
    for view, sql in questions.items():
        rows = [list(row) for row in connection.sql(sql).fetchall()]
        if view == BY_YEAR_FIRST:
            rows.sort(key=lambda row: (row[1], row[0]))
        answers[view] = rows
    return answers


def differences(expected, actual):
    """One sentence per view that differs; empty when all are equal, order included."""
    found = []
    for view in sorted(expected.keys() | actual.keys()):
        left, right = expected.get(view), actual.get(view)
        if left == right:
            continue
        if left is None or right is None:
            found.append(f"{view}: only {'the reference' if right is None else 'the other side'} has it")
            continue
        missing = [row for row in left if row not in right][:3]
        extra = [row for row in right if row not in left][:3]
        order = "" if missing or extra else "; the rows are equal but their order or number is not"
        found.append(f"{view}: {len(left)} rows expected, {len(right)} found; missing {missing}, extra {extra}{order}")
    return found
