-- title: Country of the most followed poster
-- question: In which country does the poster with the most followers live?
-- chart: bar country follower_count
--
-- Countries whose posters share the first place are all shown.
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
ranked AS (
  SELECT
    country,
    follower_count,
    RANK() OVER (ORDER BY follower_count DESC) AS place
  FROM most
)
SELECT
  country,
  follower_count
FROM ranked
WHERE place = 1
ORDER BY
  follower_count DESC,
  country
