-- p-values outside [0, 1], or smaller after correction than before
select * from staging.comparisons where not (p between 0 and 1) or not (p_holm between p and 1)
