-- one row per study, user and rank: what to show each user now, and how well known each item is
select
    recommendations.*,
    catalogue.train_rows
from staging.recommendations as recommendations
left join staging.catalogue as catalogue
    on recommendations.study = catalogue.study
    and catalogue.track = 'next_item'
    and recommendations.item = catalogue.item
order by recommendations.study, recommendations.user, recommendations.rank
