-- one row per number of training examples, part, variant and seed
select
    study,
    method,
    variant,
    seed,
    shots,
    part,
    rows,
    users,
    auc,
    low,
    high
from raw.few_shot
