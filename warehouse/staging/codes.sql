-- one row per binary code of a user or item
select
    study,
    stage,
    seed,
    entity,
    id,
    bits,
    dotted,
    trained
from raw.codes
