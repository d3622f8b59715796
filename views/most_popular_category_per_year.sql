-- title: Most popular category per year
-- question: Which category did people post most in each year from 2018 to 2022?
-- chart: table
--
-- Categories that share the first place are all shown.
WITH counts AS (
  SELECT
    CAST(date_part('year', g."timestamp") AS BIGINT) AS post_year,
    p.category,
    COUNT(*) AS category_count
  FROM pin AS p
  JOIN geo AS g ON g.ind = p.ind
  WHERE date_part('year', g."timestamp") BETWEEN 2018 AND 2022
  GROUP BY
    CAST(date_part('year', g."timestamp") AS BIGINT),
    p.category
),
ranked AS (
  SELECT
    post_year,
    category,
    category_count,
    RANK() OVER (PARTITION BY post_year ORDER BY category_count DESC) AS place
  FROM counts
)
SELECT
  post_year,
  category,
  category_count
FROM ranked
WHERE place = 1
ORDER BY
  post_year,
  category
