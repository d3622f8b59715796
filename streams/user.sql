-- An author's name is what there is of first and last name, trimmed and joined by one blank,
-- and NULL if there is neither.
SELECT
  parse_integer(ind) AS ind,
  NULLIF(concat_ws(' ', trim(first_name), trim(last_name)), '') AS user_name,
  parse_integer(age) AS age,
  parse_timestamp(date_joined) AS date_joined
FROM raw
