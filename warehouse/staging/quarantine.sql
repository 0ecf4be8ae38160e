-- one row per broken rule of a refused source row
select
    study,
    "table",
    file,
    source_row,
    "column",
    reason,
    value
from raw.quarantine
