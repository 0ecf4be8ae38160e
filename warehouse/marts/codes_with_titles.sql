-- one row per study, stage, seed, entity and id: a code and whom it stands for
select
    codes.study,
    codes.stage,
    codes.seed,
    codes.entity,
    codes.id,
    coalesce(items.item_id, users.user_id) as source_id,
    coalesce(items.title, users.profile) as title,
    codes.bits,
    codes.dotted,
    codes.trained,
    count(*) over (partition by codes.study, codes.stage, codes.seed, codes.entity, codes.bits) as holders
from staging.codes as codes
left join staging.items as items
    on codes.study = items.study and codes.id = items.item and codes.entity = 'item'
left join staging.users as users
    on codes.study = users.study and codes.id = users.user and codes.entity = 'user'
