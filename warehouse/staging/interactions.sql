-- one row per interaction of a user with an item
select
    study,
    row,
    user,
    item,
    rating,
    "at" as at_time,
    part as published_part
from raw.interactions
