-- one row per item that can be recommended
select
    study,
    split_part(stage, '/', 1) as track,
    item,
    place,
    train_rows
from raw.catalogue
