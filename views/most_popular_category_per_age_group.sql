-- title: Most popular category per age group
-- question: Which category do people of each age group post most?
-- chart: table
--
-- Categories that share the first place are all shown.
WITH posts AS (
  SELECT
    CASE
      WHEN u.age BETWEEN 18 AND 24 THEN '18-24'
      WHEN u.age BETWEEN 25 AND 35 THEN '25-35'
      WHEN u.age BETWEEN 36 AND 50 THEN '36-50'
      ELSE '50+'
    END AS age_group,
    p.category
  FROM pin AS p
  JOIN "user" AS u ON u.ind = p.ind
  WHERE u.age >= 18
),
counts AS (
  SELECT
    age_group,
    category,
    COUNT(*) AS category_count
  FROM posts
  GROUP BY
    age_group,
    category
),
ranked AS (
  SELECT
    age_group,
    category,
    category_count,
    RANK() OVER (PARTITION BY age_group ORDER BY category_count DESC) AS place
  FROM counts
)
SELECT
  age_group,
  category,
  category_count
FROM ranked
WHERE place = 1
ORDER BY
  age_group,
  category
