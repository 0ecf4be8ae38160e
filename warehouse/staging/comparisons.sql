-- one row per paired test of two methods on one metric
select
    study,
    track,
    question,
    method,
    variant,
    versus_method,
    versus_variant,
    metric,
    difference,
    low,
    high,
    p,
    p_holm,
    effect,
    users
from raw.comparisons
