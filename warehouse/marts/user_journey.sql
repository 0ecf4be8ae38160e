-- one row per study and interaction: what a user met, when, and what each method made of it
with

scores as (
    select study, row, method || '/' || variant as name, avg(coalesce(probability, score)) as score
    from staging.pairs
    group by all
),

by_row as (
    select study, row, map_from_entries(list((name, score) order by name)) as scores
    from scores
    group by all
)

select
    interactions.study,
    interactions.user,
    users.user_id,
    interactions.at_time,
    interactions.row,
    interactions.item,
    items.title,
    interactions.rating,
    examples.part,
    examples.label,
    len(examples.history) as history_length,
    examples.user_seen,
    examples.item_seen,
    by_row.scores
from staging.interactions as interactions
left join staging.items as items using (study, item)
left join staging.users as users on interactions.study = users.study and interactions.user = users.user
left join staging.examples as examples
    on interactions.study = examples.study and interactions.row = examples.row
left join by_row on interactions.study = by_row.study and interactions.row = by_row.row
order by interactions.study, interactions.user, interactions.row
