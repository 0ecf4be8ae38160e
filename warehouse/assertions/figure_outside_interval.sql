-- leaderboard values outside their own interval
select * from staging.leaderboard where not (value between low - 1e-9 and high + 1e-9)
