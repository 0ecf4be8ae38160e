-- one row per user to recommend to at one moment
select
    study,
    split_part(stage, '/', 1) as track,
    part,
    user,
    "at" as at_time,
    history,
    targets
from raw.queries
