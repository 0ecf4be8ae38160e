-- one row per request that a chat model was asked: its answer, and what all records of it took together
select
    answer,
    arg_min(model, settled) as model,
    arg_min(purpose, settled) as purpose,
    arg_min(prompt, settled) as prompt,
    arg_min(coalesce(text, ''), settled) as text,
    arg_min(status, settled) as status,
    arg_min(tokens_in, settled) as tokens_in,
    arg_min(tokens_out, settled) as tokens_out,
    arg_min(seconds, settled) as latency_seconds,
    sum(calls)::bigint as calls,
    sum(price) as price,
    arg_min(source, settled) as source,
    max(answered_at) as answered_at
from (
    select
        *,
        messages::json ->> '$[#-1].content' as prompt,
        -- settled before failed; of the settled the first
        (status = 'failed', answered_at) as settled
    from staging.answers
) as records
group by answer
order by purpose, answer
