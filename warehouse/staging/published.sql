-- one row per figure that a paper published for a method and variant on a data set's split
select
    method,
    variant,
    data,
    track,
    split,
    metric,
    value::double as value,
    source,
    note
from raw.published
