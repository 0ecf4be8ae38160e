-- one row per study, method, variant, seed, part, row and form: a prompt, its answer's score and the titles behind it
with

shown as (
    select
        study, method, variant, seed, part, row, form,
        unnest(shown) as item, generate_subscripts(shown, 1) as place
    from staging.prompts
),

histories as (
    select
        shown.study,
        shown.method,
        shown.variant,
        shown.seed,
        shown.part,
        shown.row,
        shown.form,
        list(items.title order by shown.place) as shown_titles
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
    prompts.form,
    prompts.user,
    prompts.item,
    items.title,
    histories.shown_titles,
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
left join histories using (study, method, variant, seed, part, row, form)
