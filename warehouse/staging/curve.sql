-- one row per point of a learning curve
select
    study,
    stage,
    variant,
    seed,
    phase,
    step,
    metric,
    value
from raw.curve
