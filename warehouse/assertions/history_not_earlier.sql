-- history items that the user had not met before the example's time
with

shown as (
    select study, track, row, user, at_time, unnest(history) as item
    from staging.examples
),

first_met as (
    select study, user, item, min(at_time) as met
    from staging.interactions
    group by all
)

select shown.*, first_met.met
from shown
left join first_met using (study, user, item)
where first_met.met is null or first_met.met >= shown.at_time
