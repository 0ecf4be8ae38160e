-- one row per study, stage, seed and item: an item's semantic id and who shares its codes
select
    ids.study,
    ids.stage,
    ids.seed,
    ids.item,
    items.item_id,
    items.title,
    ids.codes,
    ids.digit,
    count(*) over (partition by ids.study, ids.stage, ids.seed, ids.codes) as holders
from staging.semantic_ids as ids
left join staging.items as items on ids.study = items.study and ids.item = items.item
order by
    ids.study,
    ids.stage,
    ids.seed,
    ids.codes,
    ids.digit
