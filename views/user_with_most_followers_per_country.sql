-- title: Most followed poster per country
-- question: Who has the most followers in each country?
-- chart: table
--
-- Posters that share the first place are all shown; a country where no count is known is not.
-- The maximum per country comes first, so that only its holders are compared by name.
WITH most AS (
  SELECT
    g.country,
    MAX(p.follower_count) AS follower_count
  FROM pin AS p
  JOIN geo AS g ON g.ind = p.ind
  WHERE p.follower_count IS NOT NULL
  GROUP BY
    g.country
),
holders AS (
  SELECT DISTINCT
    g.country AS country,
    p.poster_name AS poster_name,
    p.follower_count AS follower_count
  FROM pin AS p
  JOIN geo AS g ON g.ind = p.ind
  JOIN most AS m ON m.country = g.country AND m.follower_count = p.follower_count
)
SELECT
  country,
  poster_name,
  follower_count
FROM holders
ORDER BY
  country,
  poster_name
