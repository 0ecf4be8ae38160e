-- one row per study, track, method, variant, control and metric: the method minus its own control on test
select
    study,
    track,
    method,
    variant,
    versus_method as control_method,
    versus_variant as control,
    metric,
    difference,
    low,
    high,
    p,
    p_holm,
    effect,
    users,
    case
        when (low > 0 or high < 0) and p_holm < 0.05 then 'a difference is shown'
        else 'no difference could be shown'
    end as finding
from staging.comparisons
where question = 'control'
order by study, track, method, variant, control, metric
