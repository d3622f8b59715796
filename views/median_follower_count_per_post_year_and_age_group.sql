-- title: Median followers per post year and age group
-- question: How many followers does the poster of a typical post have, by age group and year of the post from 2015 to 2020?
-- chart: table
--
-- The median is the lower one, over posts whose follower count is known; it is NULL where none
-- is. Posts are first counted per follower count, of which there are few.
WITH posts AS (
  SELECT
    CASE
      WHEN u.age BETWEEN 18 AND 24 THEN '18-24'
      WHEN u.age BETWEEN 25 AND 35 THEN '25-35'
      WHEN u.age BETWEEN 36 AND 50 THEN '36-50'
      ELSE '50+'
    END AS age_group,
    CAST(date_part('year', g."timestamp") AS BIGINT) AS post_year,
    p.follower_count
  FROM pin AS p
  JOIN "user" AS u ON u.ind = p.ind
  JOIN geo AS g ON g.ind = p.ind
  WHERE u.age >= 18
    AND date_part('year', g."timestamp") BETWEEN 2015 AND 2020
),
counts AS (
  SELECT
    age_group,
    post_year,
    follower_count,
    COUNT(follower_count) AS n_posts
  FROM posts
  GROUP BY
    age_group,
    post_year,
    follower_count
),
running AS (
  SELECT
    age_group,
    post_year,
    follower_count,
    SUM(n_posts) OVER (PARTITION BY age_group, post_year ORDER BY follower_count NULLS LAST) AS n_so_far,
    SUM(n_posts) OVER (PARTITION BY age_group, post_year) AS n_in_all
  FROM counts
)
SELECT
  age_group,
  post_year,
  MIN(CASE WHEN 2 * n_so_far >= n_in_all THEN follower_count END) AS median_follower_count
FROM running
GROUP BY
  age_group,
  post_year
ORDER BY
  post_year,
  age_group
