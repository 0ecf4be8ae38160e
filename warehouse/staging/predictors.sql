-- one row per artefact that ends in predictions of a method, variant and seed
select distinct
    study,
    track,
    method,
    variant,
    seed,
    stage,
    fingerprint
from raw.pairs
