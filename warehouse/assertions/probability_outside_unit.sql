-- probabilities below 0, above 1 or not a number
select * from staging.pairs where not (probability between 0 and 1)
