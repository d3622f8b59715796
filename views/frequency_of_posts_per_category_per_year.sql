-- title: Posts per category and year
-- question: How many posts did each category have in each year from 2018 to 2022?
-- chart: table
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
ORDER BY
  post_year,
  category_count DESC,
  category
