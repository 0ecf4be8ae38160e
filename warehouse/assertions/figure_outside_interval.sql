-- leaderboard values outside their own interval
select * from staging.leaderboard where not (value between low and high)
