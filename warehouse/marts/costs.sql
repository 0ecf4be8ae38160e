-- one row per study, track, method and variant: what it took to make its predictions, mean over seeds
with recursive

ancestors as (
    -- the stage that asks all fitted models again is no model's own: what a model took stands on its own track
    select makers.*
    from (from staging.predictors union all from staging.rankers) as makers
    inner join staging.artefacts as artefacts using (study, fingerprint)
    where artefacts.section <> 'evaluate'
    union
    select
        child.study,
        child.track,
        child.method,
        child.variant,
        child.seed,
        child.stage,
        edge.parent_fingerprint
    from ancestors as child
    inner join staging.lineage as edge
        on child.study = edge.study and child.fingerprint = edge.fingerprint
),

numbers as (
    select
        study,
        fingerprint,
        max(value) filter (where metric = 'trainable_parameters') as trainable_parameters,
        max(value) filter (where metric = 'tokens_seen') as tokens_seen
    from staging.metrics
    group by all
),

parts as (
    select
        ancestors.*,
        artefacts.seconds,
        artefacts.peak_memory_mb,
        artefacts.peak_gpu_memory_mb,
        artefacts.device,
        numbers.trainable_parameters,
        numbers.tokens_seen,
        -- a method's stages are all its own; a model is one stage, whatever track its name begins with
        artefacts.stage = ancestors.stage or (
            artefacts.section = 'methods' and artefacts.family = split_part(ancestors.stage, '/', 1)
        ) as own
    from ancestors
    inner join staging.artefacts as artefacts using (study, fingerprint)
    left join numbers using (study, fingerprint)
),

per_seed as (
    select
        study,
        track,
        method,
        variant,
        seed,
        sum(seconds) filter (where own) as seconds,
        sum(seconds) as seconds_with_inputs,
        max(peak_memory_mb) filter (where own) as peak_memory_mb,
        max(peak_gpu_memory_mb) filter (where own) as peak_gpu_memory_mb,
        max(trainable_parameters) filter (where own) as trainable_parameters,
        sum(tokens_seen) filter (where own) as tokens_seen,
        string_agg(distinct device, ', ' order by device) filter (where own) as device
    from parts
    group by all
)

select
    study,
    track,
    method,
    variant,
    count(*) as seeds,
    avg(seconds) as seconds,
    avg(seconds_with_inputs) as seconds_with_inputs,
    max(peak_memory_mb) as peak_memory_mb,
    max(peak_gpu_memory_mb) as peak_gpu_memory_mb,
    max(trainable_parameters)::bigint as trainable_parameters,
    avg(tokens_seen)::bigint as tokens_seen,
    max(device) as device
from per_seed
group by all
order by study, seconds
