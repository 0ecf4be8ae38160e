-- items that a user's recommendations hold more than once
select study, user, item, count(*) as times
from staging.recommendations
group by all
having count(*) > 1
