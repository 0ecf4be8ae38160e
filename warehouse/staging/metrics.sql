-- one row per number that an artefact carries
select
    study,
    stage,
    variant,
    seed,
    fingerprint,
    kind,
    metric,
    value,
    text
from raw.metrics
