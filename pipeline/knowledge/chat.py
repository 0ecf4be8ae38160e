"""Ask an OpenAI-compatible endpoint many questions: fast, within limits, each until it is answered or given up.

    questions -> purse (caps) -> turnstile (rates) -> one call -> lost? back off, again : judge -> reply

The client's own retries are off, so that every call is counted here. A cap is never exceeded: a call first
reserves the most that it may take (a token is at least one byte of a prompt, and an answer is no longer than
asked for), and what it did not take is given back when it has ended. A call that was cut off or timed out may
have been charged for, so it keeps its reservation.
"""

import asyncio
import json
import logging
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from pipeline.knowledge.answers import Message, Status
from pipeline.knowledge.refusals import refused
from pipeline.knowledge.settings import Caps, ChatSettings, Pace, Prices
from pipeline.redact import redact
from pipeline.study import StudyError

log = logging.getLogger("interlingua")
MINUTE = 60.0
OVERHEAD = (
    64  # tokens that an endpoint's chat template may add to a prompt, a system line of its own among them
)
PER_MESSAGE = 16  # and to each message
LONGEST = 300  # characters of what an endpoint says of an error
BYTES_PER_TOKEN = 4  # of plain English; for estimates only
WRONG = (401, 403, 404)  # no later call would fare better
PASSING = (408, 409, 425, 429)  # and all from 500: worth another try
REPAIR = (
    "That is not the JSON that was asked for: {fault}. Answer again with one JSON object that fits this "
    "schema, and with nothing else: {schema}"
)


class ChatError(StudyError):
    """An endpoint that cannot be asked; the message says what to mend, and never a key."""


@dataclass(frozen=True)
class Endpoint:
    """A chat model that is ready to be asked."""

    address: str
    model: str
    key: str = field(default="none", repr=False)
    near: bool = False  # on this machine, so no proxy stands between
    slots: int | None = None  # answers that it writes at once, where that is known: more would only wait there

    def hide(self, text: str) -> str:
        """The text without the key, whoever repeats it."""
        return redact(text.replace(self.key, "***") if len(self.key) > 4 else text)


class Question(NamedTuple):
    answer: str  # its fingerprint
    messages: Sequence[Message]
    purpose: str


class Reply(NamedTuple):
    """What came of one question, and what it took."""

    status: Status | Literal["not_asked"]
    text: str | None = None
    error: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    calls: int = 0
    seconds: float = 0.0
    lost_in: int = 0  # tokens that calls without an answer may have taken, at most
    lost_out: int = 0


TAKEN = ("calls", "tokens_in", "tokens_out", "lost_in", "lost_out")


class Spent(NamedTuple):
    calls: int = 0
    tokens: int = 0
    money: float = 0.0


NOTHING_SPENT = Spent()


class Lost(Exception):
    """A call that brought no answer. wait: seconds that the endpoint asks for; charged: it may cost."""

    def __init__(self, why: str, again: bool = True, wait: float | None = None, charged: bool = False) -> None:
        super().__init__(why)
        self.again, self.wait, self.charged = again, wait, charged


def most_tokens(messages: Sequence[Message]) -> int:
    """No tokenizer makes more of them: one a byte, and what a chat template adds."""
    return OVERHEAD + sum(PER_MESSAGE + len(one["content"].encode("utf-8", "replace")) for one in messages)


def likely_tokens(messages: Sequence[Message]) -> int:
    letters = sum(len(one["content"].encode("utf-8", "replace")) for one in messages)
    return letters // BYTES_PER_TOKEN + 8 * len(messages)


# --- what may be spent -------------------------------------------------------------------------------------


class Purse:
    """Counts what was taken and what calls under way may still take, so that no cap is ever exceeded."""

    def __init__(self, caps: Caps, prices: Prices, before: Spent = NOTHING_SPENT) -> None:
        self.caps, self.prices = caps, prices
        self.calls, self.tokens, self.money = before

    def reserve(self, tokens_in: int, tokens_out: int) -> str | None:
        """Set aside the most that a call may take; the name of the cap where it does not fit."""
        money = self.prices.of(tokens_in, tokens_out)
        wanted = {
            "requests": (self.calls + 1, self.caps.requests),
            "tokens": (self.tokens + tokens_in + tokens_out, self.caps.tokens),
            "money": (self.money + money, self.caps.money),
        }
        for name, (total, cap) in wanted.items():
            if cap is not None and total > cap:
                return name
        self.calls, self.tokens, self.money = (total for total, _ in wanted.values())
        return None

    def give_back(self, tokens_in: int, tokens_out: int) -> None:
        """Return what a call did not take of its reservation."""
        self.tokens -= tokens_in + tokens_out
        self.money -= self.prices.of(tokens_in, tokens_out)


class Turnstile:
    """Lets calls start as fast as the limits of a minute allow, and none while the endpoint asks for rest."""

    def __init__(self, pace: Pace, window: float = MINUTE) -> None:
        self.pace, self.window = pace, window
        self.started: deque[tuple[float, int]] = deque()
        self.tokens = 0
        self.closed_until = 0.0
        self.door = asyncio.Lock()

    async def enter(self, tokens: int) -> None:
        """Wait for one's turn. The wait is in order, so that a large request is not overtaken for ever."""
        async with self.door:
            while (wait := self.wait(tokens)) > 0:
                await asyncio.sleep(wait)
            self.started.append((time.monotonic(), tokens))
            self.tokens += tokens

    def wait(self, tokens: int) -> float:
        """Seconds until a call of so many tokens may start."""
        now = time.monotonic()
        if now < self.closed_until:
            return self.closed_until - now
        while self.started and self.started[0][0] <= now - self.window:
            self.tokens -= self.started.popleft()[1]
        many = self.pace.requests_per_minute
        heavy = self.pace.tokens_per_minute
        full = many is not None and len(self.started) >= many
        full |= heavy is not None and bool(self.started) and self.tokens + tokens > heavy
        return self.started[0][0] + self.window - now if full else 0.0

    def close(self, seconds: float) -> None:
        self.closed_until = max(self.closed_until, time.monotonic() + seconds)


# --- one conversation --------------------------------------------------------------------------------------


class Talk:
    """All calls of one asking: what they share is here, and what comes of each is told as it comes."""

    def __init__(
        self,
        client: Any,
        endpoint: Endpoint,
        chat: ChatSettings,
        before: Spent = NOTHING_SPENT,
        reads: type[BaseModel] | None = None,
    ) -> None:
        self.client, self.endpoint, self.chat, self.reads = client, endpoint, chat, reads
        self.purse = Purse(chat.caps, chat.prices, before)
        self.turnstile = Turnstile(chat.pace)
        self.until = None if chat.caps.seconds is None else time.monotonic() + chat.caps.seconds
        self.stopped: str | None = None  # why nothing more is asked
        self.failed_in_a_row = 0
        self.under_way, self.freed = 0, asyncio.Event()
        self.parameters = chat.parameters.sent() | expects(reads)

    async def all(self, questions: Iterable[Question], told: Callable[[Question, Reply], None]) -> None:
        """Ask every question once; `told` hears of each as it ends, also of those that were not asked."""
        waiting = iter(questions)

        async def work() -> None:
            for question in waiting:  # shared: each worker takes the next
                told(question, await self.answer(question))

        many = min(self.chat.pace.concurrency, self.endpoint.slots or self.chat.pace.concurrency)
        workers = [asyncio.create_task(work()) for _ in range(many)]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def answer(self, question: Question) -> Reply:
        """One question's reply; a wrong form is sent back once."""
        if self.stopped or self.late():
            return Reply("not_asked", error=self.stopped)
        began = time.monotonic()
        reply = await self.call(question.messages)
        if self.reads is not None and reply.status == "answered":
            reply = await self.in_form(question, reply, self.reads)
        self.count(reply)
        return reply._replace(seconds=round(time.monotonic() - began, 3))

    async def in_form(self, question: Question, reply: Reply, form: type[BaseModel]) -> Reply:
        """The reply as valid JSON, after one repair at most; `invalid` where it stays wrong."""
        fault = misfit(reply.text or "", form)
        if fault is None:
            return reply._replace(text=bare_json(reply.text or ""))
        said = REPAIR.format(fault=fault, schema=json_schema(form))
        again = [{"role": "assistant", "content": reply.text or ""}, {"role": "user", "content": said}]
        second = await self.call([*question.messages, *again])
        both = after(reply, second)
        if second.status not in ("answered", "truncated"):
            return both._replace(status="failed") if second.status == "not_asked" else both
        fault = misfit(second.text or "", form)
        if fault is None:
            return both._replace(status="answered", text=bare_json(second.text or ""))
        return both._replace(status="invalid", error=fault)

    def count(self, reply: Reply) -> None:
        """Stop where an endpoint only fails."""
        self.failed_in_a_row = self.failed_in_a_row + 1 if reply.status == "failed" else 0
        if self.failed_in_a_row >= self.chat.pace.failures_in_a_row and not self.stopped:
            self.stopped = f"{self.failed_in_a_row} requests in a row failed, the last: {reply.error}"

    def late(self) -> bool:
        if self.until is not None and time.monotonic() >= self.until and not self.stopped:
            self.stopped = "the cap on seconds is reached"
        return self.stopped is not None

    async def call(self, messages: Sequence[Message]) -> Reply:
        """One answer, however many tries it takes within the limits."""
        most = most_tokens(messages), self.chat.parameters.max_tokens
        took = Reply("not_asked")
        for attempt in range(self.chat.pace.tries):
            if not await self.may_start(messages, most):
                break
            took = took._replace(calls=took.calls + 1)
            try:
                reply = await self.once(messages)
            except Lost as lost:
                cost = most if lost.charged else (0, 0)
                self.ended(most, cost)
                took = took._replace(status="failed", error=str(lost))
                took = took._replace(lost_in=took.lost_in + cost[0], lost_out=took.lost_out + cost[1])
                if not lost.again:
                    break
                if attempt + 1 < self.chat.pace.tries:
                    await self.rest(attempt, lost.wait)
            except BaseException:
                self.ended(most, most)
                raise
            else:
                self.ended(most, (reply.tokens_in, reply.tokens_out))
                return after(took, reply)
        return took if took.calls else took._replace(error=self.stopped)

    async def may_start(self, messages: Sequence[Message], most: tuple[int, int]) -> bool:
        """Wait until a call fits into the caps and the pace, and set aside the most that it may take.

        A cap that calls under way leave no room in is waited for: most take less than they may.
        """
        while not self.late() and (cap := self.purse.reserve(*most)):
            if not self.under_way:
                self.stopped = self.stopped or f"the cap on {cap} is reached"
                return False
            self.freed.clear()
            await self.freed.wait()
        if self.stopped:
            return False
        self.under_way += 1
        try:
            async with asyncio.timeout(self.left()):
                await self.turnstile.enter(likely_tokens(messages) + most[1])
        except TimeoutError:
            self.late()
        if not self.late():
            return True
        self.purse.calls -= 1  # it was not made
        self.ended(most, (0, 0))
        return False

    def ended(self, most: tuple[int, int], took: tuple[int, int]) -> None:
        """A call is over: what it did not take is free for others."""
        self.purse.give_back(most[0] - took[0], most[1] - took[1])
        self.under_way -= 1
        self.freed.set()

    def left(self) -> float | None:
        """Seconds until the cap on them; None without one."""
        return None if self.until is None else max(0.001, self.until - time.monotonic())

    async def rest(self, attempt: int, asked: float | None) -> None:
        """Back off before the next try: as the endpoint asks, else doubling, with jitter."""
        pace = self.chat.pace
        if asked is not None and asked > pace.longest_wait:
            self.stopped = self.stopped or f"the endpoint asks to wait {asked:.0f} s"
            return
        if asked is not None:
            self.turnstile.close(asked * random.uniform(1.0, 1.1))  # it asks all of us
            return
        wait = min(pace.longest_wait, pace.wait * 2**attempt) * random.uniform(0.5, 1.0)
        await asyncio.sleep(min(wait, self.left() or wait))

    async def once(self, messages: Sequence[Message]) -> Reply:
        """One call. Raises Lost where it brings no answer, ChatError where none ever will."""
        import openai

        timeout = min(self.chat.pace.timeout, self.left() or self.chat.pace.timeout)
        try:
            async with asyncio.timeout(timeout):
                came = await self.client.chat.completions.create(
                    model=self.endpoint.model, messages=list(messages), **self.parameters
                )
        except openai.APIStatusError as error:
            raise self.refused(error) from error
        except (TimeoutError, openai.APITimeoutError) as error:
            raise Lost(f"no answer within {timeout:.0f} s", charged=True) from error
        except openai.APIConnectionError as error:
            down = "Connect" in type(error.__cause__).__name__  # it never got the request
            raise Lost(f"no connection: {type(error.__cause__).__name__}", charged=not down) from error
        except (openai.OpenAIError, ValueError) as error:  # no JSON, or JSON of another kind
            raise Lost(f"a torn answer: {type(error).__name__}", charged=True) from error
        return read(came, messages)

    def refused(self, error: Any) -> Lost:
        """What an error status means. Raises ChatError where the study or its key is wrong."""
        told = re.sub(r"^Error code: \d+ - ", "", " ".join(str(error.message).split()))
        said = self.endpoint.hide(told)[:LONGEST]
        if error.status_code in WRONG:
            raise ChatError(f"the endpoint of models.chat answers {error.status_code}: {said}") from None
        again = error.status_code in PASSING or error.status_code >= 500
        return Lost(f"{error.status_code}: {said}", again, wait=retry_after(error.response.headers))


def after(first: Reply, last: Reply) -> Reply:
    """The last reply, with what both took."""
    sums = {name: getattr(first, name) + getattr(last, name) for name in TAKEN}
    return last._replace(**sums)


def expects(reads: type[BaseModel] | None) -> dict[str, Any]:
    """The parameter that asks for JSON of this form."""
    if reads is None:
        return {}
    form = {"name": reads.__name__, "schema": reads.model_json_schema()}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def read(came: Any, messages: Sequence[Message]) -> Reply:
    """The reply of a completion as the client gives it. Raises Lost where it is none."""
    try:
        choice, usage = came.choices[0], came.usage
        text, finish = choice.message.content, choice.finish_reason
        refusal = getattr(choice.message, "refusal", None)
        if not isinstance(text, str | None):
            raise TypeError("content is no text")
    except (AttributeError, IndexError, TypeError) as error:
        raise Lost("a malformed answer", charged=True) from error
    tokens_in = getattr(usage, "prompt_tokens", None)
    tokens_out = getattr(usage, "completion_tokens", None)
    tokens_in = tokens_in if isinstance(tokens_in, int) else likely_tokens(messages)
    tokens_out = tokens_out if isinstance(tokens_out, int) else len(text or "") // BYTES_PER_TOKEN
    return Reply(judged(text, finish, refusal), text, None, tokens_in, tokens_out)


def judged(text: str | None, finish: str | None, refusal: str | None) -> Status:
    """An answer that says nothing, or that it will not say it, is a refusal; a cut one is truncated."""
    if refusal or finish == "content_filter" or not (text or "").strip() or refused(text or ""):
        return "refused"
    return "truncated" if finish == "length" else "answered"


def misfit(text: str, form: type[BaseModel]) -> str | None:
    """What is wrong with a text as JSON of this form, None where it fits."""
    try:
        form.model_validate_json(bare_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the text'}: {first['msg']}"
    return None


def bare_json(text: str) -> str:
    """Without the fence and the words that models like to put around JSON."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    return found[0] if found else text.strip()


def json_schema(form: type[BaseModel]) -> str:
    return json.dumps(form.model_json_schema(), ensure_ascii=False)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait, however it says so; None where it does not."""
    for name, share in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * share)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError):
        return None


# --- the door ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(endpoint: Endpoint, chat: ChatSettings) -> AsyncIterator[Any]:
    """The client of an endpoint, with no retries of its own."""
    import httpx2
    import openai

    limits = httpx2.Limits(
        max_connections=chat.pace.concurrency, max_keepalive_connections=chat.pace.concurrency
    )
    transport = openai.DefaultAsyncHttpxClient(
        limits=limits, timeout=chat.pace.timeout, trust_env=not endpoint.near, follow_redirects=False
    )
    client = openai.AsyncOpenAI(
        api_key=endpoint.key, base_url=endpoint.address, max_retries=0, http_client=transport
    )
    async with client:
        yield client


def talk(
    questions: Sequence[Question],
    endpoint: Endpoint,
    chat: ChatSettings,
    told: Callable[[Question, Reply], None],
    before: Spent = NOTHING_SPENT,
    reads: type[BaseModel] | None = None,
) -> str | None:
    """Ask all questions; `told` hears of each once, as it ends. Returns why it stopped early, if it did.

    before: what the answers of this asking have taken in earlier runs, for the caps. Raises ChatError.
    """

    async def go() -> str | None:
        async with opened(endpoint, chat) as client:
            talk = Talk(client, endpoint, chat, before, reads)
            await talk.all(questions, told)
            return talk.stopped

    return asyncio.run(go())
