-- one row per study, track and test example: how far apart methods rank it, 0 first and 1 last of all rows
with

ranked as (
    select
        study,
        track,
        method || '/' || variant as name,
        row,
        percent_rank() over (partition by study, track, method, variant, seed order by score) as place
    from staging.pairs
    where part = 'test'
),

means as (
    select study, track, row, name, avg(place) as place
    from ranked
    group by all
),

spread as (
    select
        study,
        track,
        row,
        count(*) as methods,
        avg(place) as mean_place,
        max(place) - min(place) as spread,
        arg_max(name, place) as highest,
        arg_min(name, place) as lowest
    from means
    group by all
)

select
    spread.*,
    examples.user,
    examples.item,
    items.title,
    examples.label
from spread
left join staging.examples as examples using (study, track, row)
left join staging.items as items on spread.study = items.study and examples.item = items.item
order by spread.study, spread.track, spread.spread desc
