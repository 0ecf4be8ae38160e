-- one row per interaction that passed the filters of a track that ranks the catalogue
select
    study,
    split_part(stage, '/', 1) as track,
    row,
    part,
    user,
    item,
    "at" as at_time
from raw.events
