-- one row per artefact and artefact that it was made from
select
    study,
    fingerprint,
    parent_stage,
    parent_fingerprint
from raw.lineage
