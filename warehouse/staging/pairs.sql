-- one row per scored example of a method, variant and seed
select
    study,
    track,
    method,
    variant,
    seed,
    part,
    row,
    user,
    item,
    label,
    score,
    probability
from raw.pairs
