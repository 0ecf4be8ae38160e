-- one row per prompt of a method, variant and seed; form 2 is a train row asked a second time
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
    form,
    prompt,
    tokens,
    shown,
    items_shown,
    items_dropped,
    slots,
    vectors
from raw.prompts
