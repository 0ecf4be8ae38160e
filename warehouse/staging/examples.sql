-- one row per labelled user-item pair of a track
select
    study,
    split_part(stage, '/', 1) as track,
    row,
    part,
    user,
    item,
    label,
    "at" as at_time,
    history,
    history_labels,
    user_seen,
    item_seen
from raw.examples
