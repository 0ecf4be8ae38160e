"""Asking an endpoint: every planted fault, every cap, and what the endpoint hears."""

import time
from email.utils import formatdate

import pytest
from pydantic import BaseModel

from pipeline.knowledge.chat import (
    ChatError,
    Endpoint,
    Lost,
    Question,
    Reply,
    Spent,
    judged,
    most_tokens,
    retry_after,
    talk,
)
from pipeline.knowledge.settings import ChatSettings
from tests.chat_endpoint import Heard, Script, Turn, asked, echo, endpoint, fails, says

FAST = {"wait": 0.01, "timeout": 5.0, "concurrency": 4}


class Tags(BaseModel):
    tags: list[str]


NOTHING = Spent()


def question(content: str) -> Question:
    return Question(content, [{"role": "user", "content": content}], "test")


def ask(
    script: Script, contents: list[str], key: str = "none", before: Spent = NOTHING, reads=None, **settings
) -> tuple[dict[str, Reply], Heard, str | None]:
    """Replies by content, what the endpoint heard, and why it stopped."""
    replies: dict[str, Reply] = {}
    pace = {**FAST, **settings.pop("pace", {})}
    with endpoint(script) as heard:
        chat = ChatSettings.model_validate({"location": heard.address, "model": "m", "pace": pace, **settings})

        def told(one: Question, reply: Reply) -> None:
            assert one.answer not in replies
            replies[one.answer] = reply

        here = Endpoint(heard.address, "m", key, near=True)
        stopped = talk([question(one) for one in contents], here, chat, told, before, reads)
    return replies, heard, stopped


def first(turn: Turn) -> Script:
    """That turn for the first call, good answers after it."""
    return lambda body, number: turn if number == 1 else echo(body, number)


def test_every_question_is_told_of_once_with_what_it_took() -> None:
    replies, heard, stopped = ask(echo, [f"film {i}" for i in range(40)])
    assert {name: reply.text for name, reply in replies.items()} == {
        f"film {i}": f"about film {i}" for i in range(40)
    }
    assert {(reply.status, reply.tokens_in, reply.tokens_out, reply.calls) for reply in replies.values()} == {
        ("answered", 5, 7, 1)
    }
    assert (heard.calls, stopped) == (40, None)
    assert heard.bodies[0]["model"] == "m"
    assert heard.bodies[0]["max_tokens"] == 256


def test_no_more_are_under_way_than_allowed() -> None:
    _, heard, _ = ask(
        lambda body, n: echo(body, n)._replace(seconds=0.02), list("abcdefghij"), pace={"concurrency": 3}
    )
    assert heard.most_open == 3


@pytest.mark.parametrize(
    ("fault", "charged"),
    [
        (fails(429), False),
        (fails(500), False),
        (fails(503), False),
        (fails(408), False),
        (Turn(b'{"choices": [{"mess'), True),
        (Turn(b'{"choices": []}'), True),
        (Turn(b"<html>welcome</html>", headers={"content-type": "text/html"}), True),
        (Turn(b'{"choices": [{"message": {"content": 5}}]}'), True),
        (Turn(b"null"), True),
        (says("cut off")._replace(cut=30), True),
        (says("never came")._replace(cut=0), True),
        (says("too late")._replace(seconds=2.0), True),
    ],
)
def test_one_fault_costs_one_more_call(fault: Turn, charged: bool) -> None:
    replies, heard, stopped = ask(first(fault), ["film"], pace={"timeout": 0.5})
    reply = replies["film"]
    assert (reply.status, reply.text, reply.calls, heard.calls, stopped) == (
        "answered",
        "about film",
        2,
        2,
        None,
    )
    assert (reply.tokens_in, reply.tokens_out) == (5, 7)
    most = most_tokens(question("film").messages)
    assert (reply.lost_in, reply.lost_out) == ((most, 256) if charged else (0, 0))


def test_a_request_that_always_fails_is_given_up_and_the_others_go_on() -> None:
    def script(body, number: int) -> Turn:
        return fails(500, "overloaded") if asked(body) == "bad" else echo(body, number)

    replies, heard, stopped = ask(script, ["bad", "good", "fine"], pace={"tries": 3})
    assert replies["bad"] == Reply("failed", None, "500: overloaded", calls=3, seconds=replies["bad"].seconds)
    assert {replies["good"].status, replies["fine"].status} == {"answered"}
    assert (heard.calls, stopped) == (5, None)


def test_a_request_that_is_wrong_is_not_sent_again() -> None:
    replies, heard, _ = ask(lambda body, n: fails(400, "context too long"), ["film"])
    assert (replies["film"].status, replies["film"].error, heard.calls) == (
        "failed",
        "400: context too long",
        1,
    )


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_address_ends_the_asking_and_the_key_is_not_told(status: int) -> None:
    with pytest.raises(ChatError, match=rf"answers {status}: wrong key \*\*\*$") as error:
        ask(lambda body, n: fails(status, "wrong key sk-very-secret-1"), ["film"] * 1, key="sk-very-secret-1")
    assert "very-secret" not in str(error.value)


def test_the_endpoint_gets_the_key_and_nobody_reads_it_in_a_repr() -> None:
    _, heard, _ = ask(echo, ["film"], key="sk-very-secret-1")
    assert heard.keys == {"Bearer sk-very-secret-1"}
    assert "very-secret" not in repr(Endpoint("http://127.0.0.1", "m", "sk-very-secret-1"))


def test_nobody_there_is_told_after_a_few_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Reply] = []
    chat = ChatSettings.model_validate(
        {
            "location": "http://127.0.0.1:9/v1",
            "model": "m",
            "pace": {"wait": 0.001, "tries": 2, "failures_in_a_row": 3, "concurrency": 1},
        }
    )
    here = Endpoint("http://127.0.0.1:9/v1", "m", near=True)
    stopped = talk([question(str(i)) for i in range(9)], here, chat, lambda q, reply: told.append(reply))
    assert [one.status for one in told] == ["failed"] * 3 + ["not_asked"] * 6
    assert {(one.lost_in, one.lost_out) for one in told} == {(0, 0)}  # nobody heard, nobody charges
    assert stopped is not None
    assert stopped.startswith("3 requests in a row failed, the last: no connection")


# --- waiting -----------------------------------------------------------------------------------------------


def test_the_wait_that_the_endpoint_asks_for_is_kept_by_all() -> None:
    began = time.monotonic()
    replies, _, _ = ask(first(fails(429, **{"retry-after": "0.4"})), list("abcdef"), pace={"concurrency": 1})
    assert time.monotonic() - began >= 0.4
    assert {one.status for one in replies.values()} == {"answered"}


def test_an_endpoint_that_asks_for_hours_is_given_up() -> None:
    replies, heard, stopped = ask(
        lambda b, n: fails(429, **{"retry-after": "7200"}), list("abcdef"), pace={"concurrency": 1}
    )
    assert stopped == "the endpoint asks to wait 7200 s"
    assert heard.calls == 1
    assert sorted(one.status for one in replies.values()) == ["failed"] + ["not_asked"] * 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(0, usegmt=True)}, 0.0),
    ],
)
def test_a_wait_is_read_however_it_is_written(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_to_wait_for_lies_ahead() -> None:
    assert 20 < (retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) or 0) <= 30


def test_no_more_requests_start_in_a_window_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.knowledge.chat.Turnstile.__init__.__defaults__", (0.3,))
    began = time.monotonic()
    _, heard, _ = ask(echo, [str(i) for i in range(7)], pace={"requests_per_minute": 3})
    assert time.monotonic() - began >= 0.6
    assert heard.calls == 7


def test_no_more_tokens_start_in_a_window_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.knowledge.chat.Turnstile.__init__.__defaults__", (0.3,))
    began = time.monotonic()
    ask(echo, [str(i) for i in range(4)], parameters={"max_tokens": 100}, pace={"tokens_per_minute": 250})
    assert time.monotonic() - began >= 0.3


# --- caps --------------------------------------------------------------------------------------------------

MANY = [f"film {i}" for i in range(30)]


def flaky(body, number: int) -> Turn:
    return fails(500) if number % 3 == 0 else says("text", tokens_in=20, tokens_out=30)


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("cap", [0, 1, 7, 20])
def test_the_cap_on_requests_counts_failed_calls_and_is_never_exceeded(cap: int, concurrency: int) -> None:
    replies, heard, stopped = ask(flaky, MANY, caps={"requests": cap}, pace={"concurrency": concurrency})
    assert heard.calls == cap
    assert stopped == "the cap on requests is reached"
    assert len(replies) == 30
    assert sum(one.calls for one in replies.values()) == cap
    assert {one.status for one in replies.values()} <= {"answered", "failed", "not_asked"}


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_cap_on_tokens_is_used_up_and_never_exceeded(concurrency: int) -> None:
    replies, _, stopped = ask(
        flaky, MANY, caps={"tokens": 700}, parameters={"max_tokens": 50}, pace={"concurrency": concurrency}
    )
    taken = sum(one.tokens_in + one.tokens_out for one in replies.values())
    most = most_tokens(question("film 29").messages) + 50
    assert 700 - most < taken <= 700
    assert stopped == "the cap on tokens is reached"


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_cap_on_money_is_used_up_and_never_exceeded(concurrency: int) -> None:
    prices = {"input": 1e6, "output": 2e6}  # one for a token read, two for one written
    replies, _, stopped = ask(
        flaky,
        MANY,
        caps={"money": 1000},
        prices=prices,
        parameters={"max_tokens": 50},
        pace={"concurrency": concurrency},
    )
    paid = sum(one.tokens_in + 2 * one.tokens_out for one in replies.values())
    most = most_tokens(question("film 29").messages) + 2 * 50
    assert 1000 - most < paid <= 1000
    assert stopped == "the cap on money is reached"


def test_what_was_spent_before_counts() -> None:
    _, heard, _ = ask(echo, MANY, caps={"requests": 7}, before=Spent(calls=5))
    assert heard.calls == 2


def test_a_call_that_was_cut_off_counts_as_charged() -> None:
    _, heard, stopped = ask(
        lambda body, n: says("x")._replace(cut=9), ["film"], caps={"tokens": 700}, pace={"concurrency": 1}
    )
    assert heard.calls == 2  # a third would not fit: each may have cost 340
    assert stopped == "the cap on tokens is reached"


def test_the_cap_on_seconds_ends_calls_under_way() -> None:
    began = time.monotonic()
    replies, _, stopped = ask(
        lambda body, n: echo(body, n)._replace(seconds=9.0), list("abcdef"), caps={"seconds": 0.3}
    )
    assert time.monotonic() - began < 5
    assert stopped == "the cap on seconds is reached"
    assert {one.status for one in replies.values()} == {"failed", "not_asked"}


# --- what an answer is -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "finish", "refusal", "status"),
    [
        ("A heist film.", "stop", None, "answered"),
        ("A heist film about", "length", None, "truncated"),
        ("I'm sorry, but I can't help with that.", "stop", None, "refused"),
        ("I\u2019m sorry, I cannot.", "stop", None, "refused"),
        ("I cannot assist with that request.", "stop", None, "refused"),
        ("As an AI language model, I do not watch films.", "stop", None, "refused"),
        ("I can recommend Heat to anyone.", "stop", None, "answered"),
        ("Sorry We Missed You is a drama.", "stop", None, "answered"),
        ("", "stop", None, "refused"),
        (None, "stop", None, "refused"),
        (" \n", "stop", None, "refused"),
        ("A heist", "content_filter", None, "refused"),
        (None, "stop", "I will not.", "refused"),
    ],
)
def test_refusals_and_cut_answers_are_told_apart(text, finish, refusal, status) -> None:
    assert judged(text, finish, refusal) == status


def test_an_answer_in_the_wanted_form_is_bared_of_what_stands_around_it() -> None:
    replies, heard, _ = ask(lambda b, n: says('Sure!\n```json\n{"tags": ["heist"]}\n```'), ["film"], reads=Tags)
    assert replies["film"].text == '{"tags": ["heist"]}'
    assert heard.bodies[0]["response_format"]["json_schema"]["name"] == "Tags"


def test_a_wrong_form_is_sent_back_once_with_what_is_wrong() -> None:
    replies, heard, _ = ask(
        lambda b, n: says('{"tags": "heist"}' if n == 1 else '{"tags": ["heist"]}'), ["film"], reads=Tags
    )
    assert (replies["film"].status, replies["film"].text) == ("answered", '{"tags": ["heist"]}')
    assert (replies["film"].calls, replies["film"].tokens_in) == (2, 10)
    assert [one["role"] for one in heard.bodies[1]["messages"]] == ["user", "assistant", "user"]
    assert "tags: Input should be a valid array" in asked(heard.bodies[1])


def test_a_form_that_stays_wrong_is_invalid_after_one_repair() -> None:
    replies, heard, _ = ask(lambda b, n: says("tags: heist"), ["film"], reads=Tags)
    assert (replies["film"].status, heard.calls) == ("invalid", 2)
    assert (replies["film"].error or "").startswith("the text: Invalid JSON")


def test_a_loss_says_whether_it_is_worth_another_try() -> None:
    assert Lost("x").again
    assert not Lost("x").charged
