-- one row per figure of what a run's lists of all users together show, on one part
select
    study,
    track,
    method,
    variant,
    seed,
    part,
    metric,
    value
from raw.exposure
