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
        any_value(value) filter (where metric = 'ndcg_10' and part = 'test') as ndcg_10,
        any_value(low) filter (where metric = 'ndcg_10' and part = 'test') as ndcg_10_low,
        any_value(high) filter (where metric = 'ndcg_10' and part = 'test') as ndcg_10_high,
        any_value(value) filter (where metric = 'hr_1' and part = 'test') as hr_1,
        any_value(value) filter (where metric = 'hr_10' and part = 'test') as hr_10,
        any_value(value) filter (where metric = 'auc' and part = 'valid') as valid_auc,
        any_value(value) filter (where metric = 'uauc' and part = 'valid') as valid_uauc,
        any_value(value) filter (where metric = 'ndcg_10' and part = 'valid') as valid_ndcg_10,
        max(seeds) as seeds
    from staging.leaderboard
    group by all
),

roles as (
    select
        makers.study,
        makers.track,
        makers.method,
        makers.variant,
        case
            when any_value(makers.variant) = 'seen_kept' then 'aside'
            when bool_or(artefacts.is_control) then 'control'
            when bool_or(artefacts.section = 'methods') then 'method'
            else 'baseline'
        end as role
    from (from staging.predictors union all from staging.rankers) as makers
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
        max(published.value) filter (where published.metric = 'ndcg_10') as published_ndcg_10,
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
    published.published_ndcg_10,
    published.published_source,
    costs.* exclude (study, track, method, variant, seeds)
from figures
left join roles using (study, track, method, variant)
left join published using (study, track, method, variant)
left join costs using (study, track, method, variant)
order by figures.study, figures.track, coalesce(figures.uauc, figures.ndcg_10) desc
