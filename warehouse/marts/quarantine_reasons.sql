-- one row per study, table, file, column and reason for which source rows were refused
select
    study,
    "table",
    file,
    "column",
    reason,
    count(*) as rows,
    min(source_row) as first_row,
    any_value(value order by source_row) as first_value
from staging.quarantine
group by all
order by study, rows desc
