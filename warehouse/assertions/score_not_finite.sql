-- scores that are not numbers
select * from staging.pairs where not isfinite(score)
