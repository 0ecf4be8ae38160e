"""A stage that asks of films, and how it reaches an endpoint of a test."""

from contextlib import contextmanager
from pathlib import Path

import polars as pl

from pipeline.knowledge.asking import CHECKS, ask_all
from pipeline.knowledge.chat import Endpoint
from pipeline.knowledge.settings import SHARED, Chat, ChatSettings
from pipeline.schema import Knowledge
from pipeline.stage import Draft, Settings, Spec, stage
from tests.chat_endpoint import Heard

KEY = "sk-planted-and-looked-for"


class Asking(Settings):
    chat: Chat
    films: tuple[str, ...] = ("Heat", "Toy Story")


@stage(
    "describing",
    settings=Asking,
    section="models",
    version=1,
    tables={"knowledge": Knowledge},
    checks=CHECKS,
    needs="chat",
    shared=SHARED,
)
def describing(settings: Asking, out: Draft) -> None:
    """Ask of each film."""
    texts = ask_all(requests(*settings.films), settings.chat, out)
    out.table("knowledge", texts.with_columns(kind=pl.lit("film")).select(Knowledge.column_names()))


def requests(*films: str) -> pl.DataFrame:
    messages = [[{"role": "user", "content": film}] for film in films]
    return pl.DataFrame({"owner": range(len(films)), "purpose": "films", "messages": messages})


def settings_of(address: str, **more) -> ChatSettings:
    pace = {"wait": 0.01, "concurrency": 4, **more.pop("pace", {})}
    return ChatSettings.model_validate({"location": address, "model": "m", "pace": pace, **more})


def spec_of(folder: Path, address: str = "http://127.0.0.1:9/v1", fingerprint: str = "f", **more) -> Spec:
    chat = settings_of(address, **more.pop("chat", {})).model_dump(mode="json")
    settings = Asking.model_validate({"chat": chat, **more}).model_dump(mode="json")
    reference = f"{__name__}:describing"
    return Spec(reference, "describing", "q", {}, settings, {}, fingerprint, str(folder), str(folder))


def reach(heard: Heard):
    @contextmanager
    def connect(chat: ChatSettings):
        yield Endpoint(heard.address, "m", KEY, near=True)

    return connect


def draft_of(folder: Path, heard: Heard | None = None, number: int = 0) -> Draft:
    path = folder / f"draft-{number}"
    path.mkdir(parents=True, exist_ok=True)
    return Draft(path, describing, spec_of(folder), folder, reach(heard) if heard else None)
