-- one row per study, method, variant, seed, part and row: a prompt, its answer's score and the titles behind it
with

shown as (
    select study, row, unnest(history) as item, generate_subscripts(history, 1) as place
    from staging.examples
),

histories as (
    select shown.study, shown.row, list(items.title order by shown.place) as history_titles
    from shown
    inner join staging.items as items using (study, item)
    group by all
)

select
    prompts.study,
    prompts.method,
    prompts.variant,
    prompts.seed,
    prompts.part,
    prompts.row,
    prompts.user,
    prompts.item,
    items.title,
    histories.history_titles,
    prompts.prompt,
    prompts.tokens,
    prompts.items_shown,
    prompts.items_dropped,
    prompts.label,
    pairs.score,
    pairs.probability
from staging.prompts as prompts
left join staging.pairs as pairs using (study, method, variant, seed, part, row)
left join staging.items as items on prompts.study = items.study and prompts.item = items.item
left join histories on prompts.study = histories.study and prompts.row = histories.row
