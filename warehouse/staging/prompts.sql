-- one row per prompt of a method, variant and seed
select
    study,
    split_part(stage, '/', 1) as method,
    variant,
    seed,
    part,
    row,
    user,
    item,
    label,
    prompt,
    tokens,
    shown,
    items_shown,
    items_dropped,
    slots,
    vectors
from raw.prompts
