-- title: Median followers per age group
-- question: How many followers does the poster of a typical post of each age group have?
-- chart: bar age_group median_follower_count
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
    p.follower_count
  FROM pin AS p
  JOIN "user" AS u ON u.ind = p.ind
  WHERE u.age >= 18
),
counts AS (
  SELECT
    age_group,
    follower_count,
    COUNT(follower_count) AS n_posts
  FROM posts
  GROUP BY
    age_group,
    follower_count
),
running AS (
  SELECT
    age_group,
    follower_count,
    SUM(n_posts) OVER (PARTITION BY age_group ORDER BY follower_count NULLS LAST) AS n_so_far,
    SUM(n_posts) OVER (PARTITION BY age_group) AS n_in_all
  FROM counts
)
SELECT
  age_group,
  MIN(CASE WHEN 2 * n_so_far >= n_in_all THEN follower_count END) AS median_follower_count
FROM running
GROUP BY
  age_group
ORDER BY
  age_group
