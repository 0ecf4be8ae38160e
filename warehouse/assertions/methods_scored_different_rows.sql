-- methods, variants and seeds that did not score every example of a part that others scored
with

scored as (
    select study, track, method, variant, seed, part, count(distinct row) as rows
    from staging.pairs
    group by all
)

select *
from scored
qualify rows <> max(rows) over (partition by study, track, part)
