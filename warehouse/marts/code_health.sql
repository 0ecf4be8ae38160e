-- one row per study, stage, seed and entity: how well the binary codes use their room
with

codes as (
    select study, stage, seed, entity, id, bits, trained
    from staging.codes
),

shared as (
    select *, count(*) over (partition by study, stage, seed, entity, bits) as holders
    from codes
),

usage as (
    select
        study,
        stage,
        seed,
        entity,
        count(*) as entities,
        max(length(bits)) as width,
        count(distinct bits) as distinct_codes,
        avg((holders > 1)::int) as share_in_collision,
        max(holders) as largest_collision,
        avg(trained::int) as share_trained
    from shared
    group by all
),

ones as (
    select
        study,
        stage,
        seed,
        entity,
        place,
        avg((bits[place] = '1')::int) as share
    from (select *, unnest(range(1, length(bits) + 1)) as place from codes)
    group by all
),

balance as (
    select
        study,
        stage,
        seed,
        entity,
        min(share) as least_ones,
        max(share) as most_ones,
        count(*) filter (where share in (0, 1)) as dead_bits
    from ones
    group by all
)

select *
from usage
left join balance using (study, stage, seed, entity)
order by study, stage, seed, entity
