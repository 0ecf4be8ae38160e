-- one row per item and its semantic id, of a stage and seed
select
    study,
    stage,
    seed,
    item,
    codes[:-2] as codes,
    codes[-1] as digit
from raw.semantic_ids
