-- one row per study, stage, item and rank: an item's nearest others by their texts, in words
select
    similar.study,
    similar.stage,
    similar.item,
    items.title,
    similar.rank,
    similar.neighbour,
    others.title as neighbour_title,
    similar.similarity
from staging.similar_items as similar
left join staging.items as items on similar.study = items.study and similar.item = items.item
left join staging.items as others on similar.study = others.study and similar.neighbour = others.item
order by
    similar.study,
    similar.stage,
    similar.item,
    similar.rank
