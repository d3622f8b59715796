-- title: Posts per category
-- question: How many posts does each category have?
-- chart: bar category number_posts
SELECT
  category,
  COUNT(*) AS number_posts
FROM pin
GROUP BY
  category
ORDER BY
  number_posts DESC,
  category
