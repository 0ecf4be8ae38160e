-- points of a learning curve that are not numbers
select * from staging.curve where not isfinite(value)
