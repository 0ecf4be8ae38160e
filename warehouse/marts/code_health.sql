-- one row per study, stage, seed and entity: how well codes use their room, binary codes and semantic ids alike
with

codes as (
    select study, stage, seed, entity, bits as code, trained::int as trained
    from staging.codes
    union all
    select study, stage, seed, 'item', codes::varchar, null
    from staging.semantic_ids
),

shared as (
    select *, count(*) over (partition by study, stage, seed, entity, code) as holders
    from codes
),

usage as (
    select
        study,
        stage,
        seed,
        entity,
        count(*) as entities,
        count(distinct code) as distinct_codes,
        count(distinct code) / count(*) as unique_share,
        avg((holders > 1)::int) as share_in_collision,
        max(holders) as largest_collision,
        avg(trained) as share_trained
    from shared
    group by all
),

room as (
    select
        study,
        stage,
        seed,
        entity,
        kind,
        count(*) as width,
        max(size) as values_a_place,
        sum(log2(size)) as room_bits,
        min(usage) as least_usage,
        min(perplexity / size) as least_perplexity,
        sum(log2(perplexity)) as used_bits,
        count(*) filter (where used = 1) as dead_places
    from code_places
    group by all
),

ones as (
    select study, stage, seed, entity, place, avg((bits[place] = '1')::int) as share
    from (select *, unnest(range(1, length(bits) + 1)) as place from staging.codes)
    group by all
),

balance as (
    select study, stage, seed, entity, min(share) as least_ones, max(share) as most_ones
    from ones
    group by all
)

select *
from usage
left join room using (study, stage, seed, entity)
left join balance using (study, stage, seed, entity)
order by study, stage, seed, entity
