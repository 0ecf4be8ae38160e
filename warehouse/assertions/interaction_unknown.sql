-- interactions with an item or a user that the study does not list
select interactions.*
from staging.interactions as interactions
left join staging.items as items using (study, item)
left join staging.users as users on interactions.study = users.study and interactions.user = users.user
where items.item is null or users.user is null
