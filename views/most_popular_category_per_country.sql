-- title: Most popular category per country
-- question: Which category do people post most in each country?
-- chart: table
--
-- Categories that share the first place are all shown.
WITH counts AS (
  SELECT
    g.country,
    p.category,
    COUNT(*) AS category_count
  FROM pin AS p
  JOIN geo AS g ON g.ind = p.ind
  GROUP BY
    g.country,
    p.category
),
ranked AS (
  SELECT
    country,
    category,
    category_count,
    RANK() OVER (PARTITION BY country ORDER BY category_count DESC) AS place
  FROM counts
)
SELECT
  country,
  category,
  category_count
FROM ranked
WHERE place = 1
ORDER BY
  country,
  category
