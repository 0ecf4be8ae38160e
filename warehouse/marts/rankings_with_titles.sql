-- one row per study, track, method, variant, seed, part, user and rank: the first 20 of each list, in words
select
    rankings.study,
    rankings.track,
    rankings.method,
    rankings.variant,
    rankings.seed,
    rankings.part,
    rankings.user,
    users.user_id,
    rankings.rank,
    rankings.item,
    items.item_id,
    items.title,
    rankings.score,
    rankings.target,
    catalogue.train_rows
from staging.rankings as rankings
left join staging.items as items on rankings.study = items.study and rankings.item = items.item
left join staging.users as users on rankings.study = users.study and rankings.user = users.user
left join staging.catalogue as catalogue
    on rankings.study = catalogue.study
    and catalogue.track = if(rankings.track like 'rerank/%', 'next_item', rankings.track)
    and rankings.item = catalogue.item
where rankings.rank <= 20 and rankings.score is not null
order by
    rankings.study,
    rankings.track,
    rankings.method,
    rankings.variant,
    rankings.seed,
    rankings.part,
    rankings.user,
    rankings.rank
