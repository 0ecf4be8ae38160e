-- one row per user, method, variant, seed and part
select
    study,
    track,
    method,
    variant,
    seed,
    part,
    user,
    rows,
    positives,
    auc,
    log_loss,
    accuracy
from raw.user_metrics
