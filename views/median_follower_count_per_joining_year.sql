-- title: Median followers per joining year
-- question: How many followers does the poster of a typical post have, by the year from 2015 to 2020 in which they joined?
-- chart: bar joining_year median_follower_count
--
-- The median is the lower one, over posts whose follower count is known; it is NULL where none
-- is. Posts are first counted per follower count, of which there are few.
WITH posts AS (
  SELECT
    CAST(date_part('year', u.date_joined) AS BIGINT) AS joining_year,
    p.follower_count
  FROM pin AS p
  JOIN "user" AS u ON u.ind = p.ind
  WHERE date_part('year', u.date_joined) BETWEEN 2015 AND 2020
),
counts AS (
  SELECT
    joining_year,
    follower_count,
    COUNT(follower_count) AS n_posts
  FROM posts
  GROUP BY
    joining_year,
    follower_count
),
running AS (
  SELECT
    joining_year,
    follower_count,
    SUM(n_posts) OVER (PARTITION BY joining_year ORDER BY follower_count NULLS LAST) AS n_so_far,
    SUM(n_posts) OVER (PARTITION BY joining_year) AS n_in_all
  FROM counts
)
SELECT
  joining_year,
  MIN(CASE WHEN 2 * n_so_far >= n_in_all THEN follower_count END) AS median_follower_count
FROM running
GROUP BY
  joining_year
ORDER BY
  joining_year
