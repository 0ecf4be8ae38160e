-- one row per study, stage, variant, seed, phase, metric and step, beside the best value seen so far
select
    study,
    stage,
    variant,
    seed,
    phase,
    metric,
    step,
    value,
    case
        when metric like '%loss' then min(value) over so_far
        else max(value) over so_far
    end as best
from staging.curve
window so_far as (partition by study, stage, variant, seed, phase, metric order by step)
order by study, stage, variant, seed, phase, metric, step
