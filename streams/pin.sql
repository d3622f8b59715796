-- A pin keeps its texts as they were posted; its number, its follower count and its path are
-- read. What cannot be read is NULL and counted. `downloaded` stays in the raw record.
SELECT
  parse_integer("index") AS ind,
  unique_id,
  title,
  description,
  parse_count(follower_count) AS follower_count,
  poster_name,
  tag_list,
  is_image_or_video,
  image_src,
  CASE
    WHEN starts_with(save_location, 'Local save in ') THEN substr(save_location, 15)
    ELSE save_location
  END AS save_location,
  category
FROM raw
