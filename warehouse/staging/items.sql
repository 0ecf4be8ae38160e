-- one row per item of a study
select
    study,
    item,
    item_id,
    title,
    categories,
    text
from raw.items
