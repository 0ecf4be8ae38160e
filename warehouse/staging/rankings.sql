-- one row per item in one user's order, by a method, variant and seed: the first places, and every target
select
    study,
    track,
    method,
    variant,
    seed,
    part,
    user,
    rank,
    item,
    score,
    target
from raw.rankings
