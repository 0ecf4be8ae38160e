-- one row per figure that a paper published for a method on a data set
select
    method,
    data,
    metric,
    value::double as value,
    source
from raw.published
