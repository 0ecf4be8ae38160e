"""Which chat model a study asks, with what parameters, how fast, and how much it may cost.

    models.chat:
      location: https://api.example.org/v1       # or `embedded`, the default: a small model on this machine
      model: some-model-2026-08
      key: EXAMPLE_API_KEY                       # the name of a variable; its value is kept nowhere
      parameters: {temperature: 0, max_tokens: 256}
      caps: {requests: 5000, money: 2.50}
      prices: {input: 0.15, output: 0.60}        # of a million tokens

Model, parameters and caps decide what is answered, so they are part of an artefact's identity. Where the
endpoint is, its key, how fast it may be asked and what it costs are not (`aside`): the same answers from
another address are the same answers.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.data.sources import LOOPBACK, Location
from pipeline.llm.load import LanguageModel
from pipeline.stage import Settings

EMBEDDED = "embedded"
MILLION = 1_000_000


class Parameters(Settings):
    """What is sent with every request."""

    temperature: float = Field(0.0, ge=0, le=2, description="0: always the likeliest word")
    max_tokens: int = Field(256, ge=1, description="longest answer, in tokens")
    top_p: float | None = Field(None, gt=0, le=1, description="share of the likeliest words to draw from")
    seed: int | None = Field(None, description="of the endpoint's draws, where it takes one")
    stop: tuple[str, ...] = Field((), max_length=4, description="texts that end an answer")

    def sent(self) -> dict[str, Any]:
        """As the endpoint reads them; what is not set is not sent."""
        written = self.model_dump(mode="json", exclude_none=True)
        return {name: value for name, value in written.items() if value != []}


class Caps(Settings):
    """What one stage's answers may take altogether; null: no cap. At a cap, the rest is not asked."""

    requests: int | None = Field(None, ge=0, description="calls of the endpoint, failed ones too")
    tokens: int | None = Field(None, ge=0, description="tokens read and written")
    money: float | None = Field(None, ge=0, description="in the currency of the prices")
    seconds: float | None = Field(None, ge=0, description="of one run")


class Prices(Settings):
    """Of a million tokens, in any one currency."""

    input: float = Field(0.0, ge=0, description="a million tokens read")
    output: float = Field(0.0, ge=0, description="a million tokens written")

    def of(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.input + tokens_out * self.output) / MILLION


class Pace(Settings):
    """How fast and how patiently an endpoint is asked."""

    concurrency: int = Field(16, ge=1, description="requests under way at once")
    requests_per_minute: int | None = Field(None, ge=1, description="started in any minute; null: no limit")
    tokens_per_minute: int | None = Field(None, ge=1, description="those of any minute; null: no limit")
    timeout: float = Field(300.0, gt=0, description="seconds until a request counts as lost")
    tries: int = Field(6, ge=1, description="calls for one request before it has failed")
    wait: float = Field(
        1.0, gt=0, description="seconds before the second try, doubled for each more; with jitter"
    )
    longest_wait: float = Field(60.0, gt=0, description="seconds; an endpoint that asks for more is given up")
    failures_in_a_row: int = Field(50, ge=1, description="after so many failed requests nothing more is asked")


class ChatSettings(Settings):
    """The chat model of a study."""

    aside: ClassVar[frozenset[str]] = frozenset({"location", "key", "pace", "prices"})

    location: Location = Field(
        EMBEDDED, description="embedded: on this machine; or the address of an OpenAI-compatible endpoint"
    )
    model: str | None = Field(None, description="the model's name there; the version, where it has one")
    key: str | None = Field(
        None,
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
        description="name of the environment variable that holds the endpoint's key",
    )
    weights: LanguageModel = Field(
        default_factory=lambda: LanguageModel.model_validate({}),
        description="the embedded model: a GGUF file, pinned by hash",
    )
    context: int = Field(2048, ge=256, description="of the embedded model: tokens of a prompt and its answer")
    parameters: Parameters = Field(default_factory=lambda: Parameters.model_validate({}))
    caps: Caps = Field(default_factory=lambda: Caps.model_validate({}))
    pace: Pace = Field(default_factory=lambda: Pace.model_validate({}))
    prices: Prices = Field(default_factory=lambda: Prices.model_validate({}))
    longest: int = Field(4000, ge=1, description="characters of an answer that are kept")
    least_coverage: float = Field(0.9, ge=0, le=1, description="a smaller share of answers is warned of")
    again: int = Field(0, ge=0, description="raise it to ask once more for what failed or was not asked")

    @field_validator("location")
    @classmethod
    def an_address(cls, location: str) -> str:
        address = urlsplit(location)
        if location != EMBEDDED and (address.scheme not in ("http", "https") or not address.hostname):
            raise ValueError("write `embedded`, or an address such as https://api.example.org/v1")
        return location

    @model_validator(mode="after")
    def named(self) -> "ChatSettings":
        if self.location != EMBEDDED and not self.model:
            raise ValueError("name the model of the endpoint: models.chat.model")
        address = urlsplit(self.location)
        if self.key and address.scheme == "http" and address.hostname not in LOOPBACK:
            raise ValueError("a key leaves this machine by https only, so that nobody on the way reads it")
        if self.location == EMBEDDED and not (self.weights.member_sha256 or self.weights.sha256):
            raise ValueError("pin the embedded model: models.chat.weights.sha256")
        if self.caps.money is not None and not self.embedded and self.prices.of(1, 1) == 0:
            raise ValueError("a cap on money needs prices: models.chat.prices")
        return self

    @property
    def embedded(self) -> bool:
        return self.location == EMBEDDED

    @property
    def identity(self) -> str:
        """The model's name in the ledger: its weights' hash, or what its endpoint calls it."""
        return (
            f"gguf:{self.weights.member_sha256 or self.weights.sha256}" if self.embedded else self.model or ""
        )

    def decided(self) -> dict[str, Any]:
        """What decides the answers: part of an artefact's identity."""
        unread = set() if self.embedded else {"context"}
        kept = self.model_dump(mode="json", exclude={*self.aside, *unread, "model", "weights"})
        return {**kept, "model": self.identity}


def default(written: Any) -> Any:
    """A study that says nothing of chat asks the embedded model."""
    return {} if written is None else written


Chat = Annotated[ChatSettings, BeforeValidator(default)]
SHARED: Mapping[str, str] = {
    "chat": "models.chat"
}  # for `@stage(shared=...)` of a stage with a `chat: Chat` field
