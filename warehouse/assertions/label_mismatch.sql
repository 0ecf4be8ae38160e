-- scored examples whose label is not the split's
select pairs.*, examples.label as split_label
from staging.pairs as pairs
inner join staging.examples as examples using (study, track, row)
where examples.label <> pairs.label
