-- one row per item and neighbour of a stage
select
    study,
    stage,
    item,
    rank,
    neighbour,
    similarity
from raw.similar_items
