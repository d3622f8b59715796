-- A place is a country and a pair of coordinates, latitude before longitude; its time is the
-- post's, to the second and without a zone.
SELECT
  parse_integer(ind) AS ind,
  country,
  make_array(parse_number(latitude), parse_number(longitude)) AS coordinates,
  parse_timestamp("timestamp") AS "timestamp"
FROM raw
