-- one row per study, stage, item and rank: an item's nearest others by their texts, in words
select
    near.study,
    near.stage,
    near.item,
    items.title,
    near.rank,
    near.neighbour,
    others.title as neighbour_title,
    near.similarity
from staging.similar_items as near
left join staging.items as items on near.study = items.study and near.item = items.item
left join staging.items as others on near.study = others.study and near.neighbour = others.item
order by
    near.study,
    near.stage,
    near.item,
    near.rank
