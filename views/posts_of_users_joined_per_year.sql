-- title: Posts by joining year
-- question: How many posts did the people make who joined in each year from 2015 to 2020?
-- chart: bar joining_year number_posts
SELECT
  CAST(date_part('year', date_joined) AS BIGINT) AS joining_year,
  COUNT(*) AS number_posts
FROM "user"
WHERE date_part('year', date_joined) BETWEEN 2015 AND 2020
GROUP BY
  CAST(date_part('year', date_joined) AS BIGINT)
ORDER BY
  joining_year
