-- shares outside [0, 1], losses below 0, figures that are not numbers
select *
from staging.leaderboard
where not isfinite(value) or value < 0 or (value > 1 and metric not like '%loss')
