-- one row per study, stage, seed, entity and place: how one bit or level of codes is used, whoever made them
with

semantic as (
    select
        ids.study,
        ids.stage,
        ids.seed,
        'item' as entity,
        'semantic' as kind,
        ids.codes,
        facts.value::uinteger as size
    from staging.semantic_ids as ids
    inner join staging.metrics as facts using (study, stage, seed)
    where facts.metric = 'codes_a_level'
),

held as (
    select
        study,
        stage,
        seed,
        entity,
        'binary' as kind,
        string_split(bits, '')::usmallint[] as codes,
        2::uinteger as size
    from staging.codes
    union all
    select study, stage, seed, entity, kind, codes, size
    from semantic
),

places as (
    select study, stage, seed, entity, kind, size, unnest(codes) as code, generate_subscripts(codes, 1) as place
    from held
),

counts as (
    select study, stage, seed, entity, kind, size, place, code, count(*) as holders
    from places
    group by all
),

shares as (
    select *, holders / sum(holders) over (partition by study, stage, seed, entity, place) as share
    from counts
)

select
    study,
    stage,
    seed,
    entity,
    kind,
    place::uinteger as place,
    size,
    count(*) as used,
    count(*) / size as usage,
    exp(-sum(share * ln(share))) as perplexity,
    max(share) as commonest
from shares
group by study, stage, seed, entity, kind, place, size
order by study, stage, seed, entity, place
