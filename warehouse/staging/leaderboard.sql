-- one row per metric of a method and variant on one part
select
    study,
    track,
    method,
    variant,
    part,
    metric,
    value,
    low,
    high,
    seed_deviation,
    seeds,
    users,
    users_skipped,
    rows
from raw.leaderboard
