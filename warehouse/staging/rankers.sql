-- one row per artefact that ends in orders of the catalogue, of a method, variant and seed
select distinct
    study,
    track,
    method,
    variant,
    seed,
    stage,
    fingerprint
from raw.rankings
