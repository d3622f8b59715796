-- title: New users per year
-- question: How many people joined in each year from 2015 to 2020?
-- chart: bar joining_year number_users_joined
--
-- A person is a name, an age and a joining time, however many posts they made.
WITH people AS (
  SELECT DISTINCT
    user_name,
    age,
    date_joined
  FROM "user"
  WHERE date_part('year', date_joined) BETWEEN 2015 AND 2020
)
SELECT
  CAST(date_part('year', date_joined) AS BIGINT) AS joining_year,
  COUNT(*) AS number_users_joined
FROM people
GROUP BY
  CAST(date_part('year', date_joined) AS BIGINT)
ORDER BY
  joining_year
