-- recommended items that their user had used before
select recommendations.*
from staging.recommendations as recommendations
inner join staging.interactions as interactions using (study, user, item)
