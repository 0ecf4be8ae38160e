-- one row per user of a study
select
    study,
    user,
    user_id,
    profile
from raw.users
