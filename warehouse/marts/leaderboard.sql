-- one row per study, track, method and variant: test figures with 95 % bounds, published figures, costs
with

figures as (
    select
        study,
        track,
        method,
        variant,
        any_value(value) filter (where metric = 'auc' and part = 'test') as auc,
        any_value(low) filter (where metric = 'auc' and part = 'test') as auc_low,
        any_value(high) filter (where metric = 'auc' and part = 'test') as auc_high,
        any_value(value) filter (where metric = 'uauc' and part = 'test') as uauc,
        any_value(low) filter (where metric = 'uauc' and part = 'test') as uauc_low,
        any_value(high) filter (where metric = 'uauc' and part = 'test') as uauc_high,
        any_value(value) filter (where metric = 'log_loss' and part = 'test') as log_loss,
        any_value(low) filter (where metric = 'log_loss' and part = 'test') as log_loss_low,
        any_value(high) filter (where metric = 'log_loss' and part = 'test') as log_loss_high,
        any_value(value) filter (where metric = 'accuracy' and part = 'test') as accuracy,
        any_value(value) filter (where metric = 'auc' and part = 'valid') as valid_auc,
        any_value(value) filter (where metric = 'uauc' and part = 'valid') as valid_uauc,
        max(seeds) as seeds
    from staging.leaderboard
    group by all
),

roles as (
    select
        predictors.study,
        predictors.method,
        predictors.variant,
        case
            when bool_or(artefacts.is_control) then 'control'
            when bool_or(artefacts.section = 'methods') then 'method'
            else 'baseline'
        end as role
    from staging.predictors as predictors
    inner join staging.artefacts as artefacts using (study, fingerprint)
    group by all
),

-- a study says which published data set and split equal its own, or nothing
same_data as (
    select study, settings ->> 'published' as data
    from staging.artefacts
    where stage = 'report'
),

published as (
    select
        same_data.study,
        published.track,
        published.method,
        published.variant,
        max(published.value) filter (where published.metric = 'auc') as published_auc,
        max(published.value) filter (where published.metric = 'uauc') as published_uauc,
        max(published.source) as published_source
    from staging.published as published
    inner join same_data using (data)
    where published.split = 'test'
    group by all
)

select
    figures.study,
    figures.track,
    figures.method,
    figures.variant,
    roles.role,
    figures.* exclude (study, track, method, variant),
    published.published_auc,
    published.published_uauc,
    published.published_source,
    costs.* exclude (study, method, variant, seeds)
from figures
left join roles using (study, method, variant)
left join published using (study, track, method, variant)
left join costs using (study, method, variant)
order by figures.study, figures.track, figures.uauc desc
