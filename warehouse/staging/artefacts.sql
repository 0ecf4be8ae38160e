-- one row per artefact that a study stands for now
select
    study,
    stage,
    section,
    split_part(stage, '/', 1) as family,
    variant,
    seed,
    fingerprint,
    is_control,
    seconds,
    peak_memory_mb,
    peak_gpu_memory_mb,
    device,
    rows,
    bytes,
    created,
    settings::json as settings
from raw.artefacts
