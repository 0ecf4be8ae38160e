-- one row per record of what a chat model answered; a request that failed and was asked again has several
select
    answer,
    model,
    purpose,
    version as prompt_version,
    sample,
    messages,
    parameters,
    text,
    status,
    error,
    tokens_in,
    tokens_out,
    lost_tokens,
    calls,
    seconds,
    price,
    source,
    make_timestamp(("at" * 1000000)::bigint) as answered_at
from raw.answers
