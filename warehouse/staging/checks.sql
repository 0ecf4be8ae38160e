-- one row per check of an artefact
select
    study,
    stage,
    variant,
    seed,
    name,
    passed,
    blocking,
    description,
    facts::json as facts
from raw.checks
