"""What is a refusal to write a text, and what is a text."""

import pytest

from pipeline.knowledge.refusals import refused


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot describe a film that I do not know.",
        "As an AI language model, I don't have preferences.",
        "Sorry, I can't help with that.",
        "I apologize, but there is no such movie.",
        "I don\u2019t have any information on this movie.",
        "Unfortunately, I could not find it. I am not able to provide a rating.",
        "I cannot provide a rating for it.",
        "I am unable to assist with that request.",
        "Unfortunately, as a large language model I know no films of this year.",
    ],
)
def test_a_refusal_is_recognised(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "A man is sorry for what he did, and cannot forgive himself.",
        "An AI takes over a ship; its crew is unable to stop it.",
        "Sorry, Wrong Number is a film noir of 1948.",
        "The large cast and language barriers make for comedy.",
        "9.5",
        "As an AI thriller it is slow; as an AI it is only human.",
        "Unfortunately, the film does not keep its promise.",
        "I can recommend it to anyone.",
    ],
)
def test_a_plot_is_no_refusal(text: str) -> None:
    assert not refused(text)
