"""What of the chat model's settings is identity, and what is refused."""

import pytest
from pydantic import ValidationError

from pipeline.knowledge.settings import Chat, ChatSettings
from pipeline.stage import Settings

HERE = {"location": "http://127.0.0.1:9/v1", "model": "m"}


class Asking(Settings):
    chat: Chat
    word: str = "x"


def test_a_study_that_says_nothing_asks_the_embedded_model() -> None:
    settings = Asking.model_validate({"chat": None})
    assert settings.chat.embedded
    assert settings.chat.identity.startswith("gguf:b179c952")


@pytest.mark.parametrize(
    "changed",
    [
        {"location": "https://other.example.org/v1"},
        {"key": "OTHER_KEY"},
        {"pace": {"concurrency": 2}},
        {"prices": {"input": 3.0}},
    ],
)
def test_where_how_fast_and_at_what_price_is_no_part_of_identity(changed) -> None:
    one, other = (ChatSettings.model_validate(given) for given in (HERE, {**HERE, **changed}))
    assert one.decided() == other.decided()
    assert one.model_dump() != other.model_dump()


@pytest.mark.parametrize(
    "changed", [{"model": "n"}, {"parameters": {"max_tokens": 3}}, {"caps": {"requests": 3}}, {"again": 1}]
)
def test_model_parameters_and_caps_are_identity(changed) -> None:
    one, other = (ChatSettings.model_validate(given) for given in (HERE, {**HERE, **changed}))
    assert one.decided() != other.decided()


def test_identity_reaches_through_a_stages_settings() -> None:
    decided = Asking.model_validate({"chat": {**HERE, "key": "SOME_KEY"}}).decided()
    assert decided["word"] == "x"
    assert decided["chat"]["model"] == "m"
    assert not {"location", "key", "pace", "prices", "context"} & set(decided["chat"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"location": "example.org"}, "write `embedded`, or an address"),
        ({"location": "https://example.org/v1"}, "name the model"),
        ({**HERE, "location": "http://example.org/v1", "key": "SOME_KEY"}, "by https only"),
        ({**HERE, "location": "https://me:secret@example.org/v1"}, "holds a user name"),
        ({**HERE, "caps": {"money": 1}}, "a cap on money needs prices"),
        ({"weights": {"location": "here.gguf"}}, "pin the embedded model"),
        ({**HERE, "key": "sk-abc"}, "pattern"),
        ({**HERE, "temprature": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ChatSettings.model_validate(given)


def test_a_server_without_a_key_on_the_next_machine_may_speak_http() -> None:
    assert ChatSettings.model_validate({**HERE, "location": "http://10.0.0.7:8000/v1"}).model == "m"


def test_only_set_parameters_are_sent() -> None:
    assert ChatSettings.model_validate(HERE).parameters.sent() == {"temperature": 0.0, "max_tokens": 256}
