-- scored examples whose user, item or part is not the split's
select pairs.*
from staging.pairs as pairs
left join staging.examples as examples using (study, track, row)
where (examples.user, examples.item, examples.part) is distinct from (pairs.user, pairs.item, pairs.part)
