-- items that a prompt shows and the example's history does not hold, the target itself among them;
-- the control that shows the history of others, on purpose, is left out
with

shown as (
    select study, method, variant, seed, row, item as target, unnest(shown) as item
    from staging.prompts
    where variant <> 'shuffled_history'
)

select shown.*
from shown
left join staging.examples as examples using (study, row)
where not coalesce(list_contains(examples.history, shown.item), false)
