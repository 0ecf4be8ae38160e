-- examples that one method, variant and seed scored more than once
select study, track, method, variant, seed, row, count(*) as times
from staging.pairs
group by all
having count(*) > 1
