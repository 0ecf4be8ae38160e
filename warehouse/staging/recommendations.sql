-- one row per place in a user's list, by the model chosen to recommend
select
    study,
    user,
    user_id,
    rank,
    item,
    item_id,
    title,
    score,
    method,
    variant,
    seed
from raw.recommendations
