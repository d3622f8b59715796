-- title: Most followed poster per country
-- question: Who has the most followers in each country?
-- chart: table
--
-- Posters that share the first place are all shown; a country where no count is known is not.
WITH followers AS (
  SELECT
    g.country,
    p.poster_name,
    MAX(p.follower_count) AS follower_count
  FROM pin AS p
  JOIN geo AS g ON g.ind = p.ind
  WHERE p.follower_count IS NOT NULL
  GROUP BY
    g.country,
    p.poster_name
),
ranked AS (
  SELECT
    country,
    poster_name,
    follower_count,
    RANK() OVER (PARTITION BY country ORDER BY follower_count DESC) AS place
  FROM followers
)
SELECT
  country,
  poster_name,
  follower_count
FROM ranked
WHERE place = 1
ORDER BY
  country,
  poster_name
