"""ReLLa: which past items its prompts show, in which order and how often, and what of ratings they tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from pipeline.methods import rella
from pipeline.methods.rella import RellaPrompts
from pipeline.schema import Users
from pipeline.stage import Artefact
from pipeline.text.embeddings import as_array, unit
from tests import toy_ctr
from tests.contracts import YesNoContract

K = 4
ASKED = 471
Made = Mapping[str, Mapping[str, Artefact]]


class TestRella(YesNoContract):
    stages: ClassVar = (rella.prompts, rella.adapter, rella.predictions)
    asked_again: ClassVar = rella.prompts.variants

    def test_retrieval_is_judged_where_there_is_some(self, prompted: Mapping[str, Artefact]) -> None:
        for variant, artefact in prompted.items():
            verdict = artefact.manifest["checks"]["shows_the_most_similar"]
            assert verdict["passed"]
            assert ("not judged" in verdict["description"]) == (variant in ("recent", "random"))
            assert "later_ratings_change_no_prompt" in artefact.manifest["checks"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What all variants read."""
    named = ("dataset", "ctr/split", "language_model", "lm_embeddings", "text_embeddings")
    methods = {"rella": {"variants": list(rella.prompts.variants)}}
    return toy_ctr.make(
        tmp_path_factory.mktemp("rella"), named, data={"dataset": {"telling": True}}, methods=methods
    )


def rendered(made: Made, variant: str, **settings) -> pl.DataFrame:
    """The table of one variant with K items and 40 train rows, unless told otherwise."""
    inputs = {name: made[name]["default"] for name in ("dataset", "language_model")}
    inputs["split"] = made["ctr/split"]["default"]
    inputs["vectors"] = made["text_embeddings" if variant == "minilm" else "lm_embeddings"]["default"]
    chosen = RellaPrompts(**{"words": toy_ctr.study().words, "history": K, "train_rows": 40, **settings})
    return rella.RANKER.render(inputs, chosen, variant, 1, inputs["split"].table("examples"))


def pasts(made: Made) -> dict[int, list[int]]:
    return dict(made["ctr/split"]["default"].table("examples").select("row", "history").iter_rows())


def most_similar(made: Made, stage: str, target: int, past: list[int]) -> list[int]:
    """The K past items nearest to the target, the nearest last."""
    rows = unit(as_array(made[stage]["default"].table("item_embeddings")))
    return sorted(past, key=lambda item: float(rows[item] @ rows[target]))[-K:]


def first_forms(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(form=1)


@pytest.mark.parametrize(("variant", "stage"), [("retrieved", "lm_embeddings"), ("minilm", "text_embeddings")])
def test_the_most_similar_items_are_shown_in_order_of_time(made: Made, variant: str, stage: str) -> None:
    histories = pasts(made)
    for row, item, shown in first_forms(rendered(made, variant)).select("row", "item", "shown").iter_rows():
        wanted = most_similar(made, stage, item, histories[row])
        assert shown == [one for one in histories[row] if one in wanted]


def test_by_similarity_the_nearest_stands_last(made: Made) -> None:
    histories = pasts(made)
    for row, item, shown in (
        first_forms(rendered(made, "by_similarity")).select("row", "item", "shown").iter_rows()
    ):
        assert shown == most_similar(made, "lm_embeddings", item, histories[row])


def test_recent_shows_the_latest_and_random_any_of_the_past(made: Made) -> None:
    histories, recent, chance = pasts(made), rendered(made, "recent"), first_forms(rendered(made, "random"))
    assert all(shown == histories[row][-K:] for row, shown in recent.select("row", "shown").iter_rows())
    for row, shown in chance.select("row", "shown").iter_rows():
        assert shown == [item for item in histories[row] if item in shown]
        assert len(shown) == min(K, len(histories[row]))
    long = [
        (row, shown) for row, shown in chance.select("row", "shown").iter_rows() if len(histories[row]) > 2 * K
    ]
    assert np.mean([shown == histories[row][-K:] for row, shown in long]) < 0.1


@pytest.mark.parametrize("variant", rella.prompts.variants)
def test_every_train_row_is_asked_twice_and_every_other_once(made: Made, variant: str) -> None:
    table = rendered(made, variant)
    again = {"recent": "recent", "without_mixture": "without_mixture"}.get(variant, "recent")
    second = first_forms(rendered(made, again)).filter(part="train")
    assert table.filter(form=2).drop("form").equals(second.drop("form"))
    train = table.filter(part="train")
    assert train["row"].to_list() == [row for row in second["row"] for _ in range(2)]
    assert train["form"].to_list() == [1, 2] * second.height
    assert table.filter(pl.col("part") != "train")["form"].unique().to_list() == [1]


def test_a_mixed_set_shows_what_is_retrieved_and_what_is_recent(made: Made) -> None:
    table = rendered(made, "retrieved").filter(part="train")
    first, second = (table.filter(form=form)["prompt"] for form in (1, 2))
    assert (first != second).mean() > 0.4
    alike = rendered(made, "without_mixture").filter(part="train")
    assert (alike.filter(form=1)["prompt"] == alike.filter(form=2)["prompt"]).all()


def question(made: Made, variant: str = "retrieved", **settings) -> tuple[str, list[int], int]:
    asked = rendered(made, variant, train_rows=1, **settings).filter(row=ASKED).row(0, named=True)
    return asked["prompt"], asked["shown"], asked["item"]


def test_the_question_tells_titles_with_stars_and_asks_for_the_target(made: Made) -> None:
    text, shown, item = question(made)
    users = dict(made["dataset"]["default"].table("interactions").select("row", "user").iter_rows())
    stars = ["5 stars" if users[ASKED] % 2 and one % 2 else "1 star" for one in shown]
    told = ", ".join(
        f'{n}. "Film {one} (19{one:02})" ({star})'
        for n, (one, star) in enumerate(zip(shown, stars, strict=True), 1)
    )
    assert text == (
        f"The user has watched the following films in the past and rated them:\n{told}\n"
        "Based on the films the user has watched, deduce if the user will like the film "
        f'"Film {item} (19{item:02})".\n'
        "Note that more stars the user rated the film, the user liked the film more.\n"
        "You should ONLY tell me yes or no. Answer:"
    )


def test_a_source_without_ratings_is_told_in_words(made: Made, tmp_path: Path) -> None:
    own = made["dataset"]["default"]
    for file in own.path.glob("*.parquet"):
        table = pl.read_parquet(file)
        bare = table.with_columns(rating=pl.lit(None, pl.Float32)) if "rating" in table.columns else table
        bare.write_parquet(tmp_path / file.name)
    bare = {**made, "dataset": {"default": Artefact(tmp_path, own.manifest)}}
    text, shown, _ = question(bare)
    assert "star" not in text
    assert text.count("(liked)") + text.count("(disliked)") == len(shown)
    assert "Note that the user said of each of them whether they liked it.\n" in text


def test_the_paper_and_other_chat_models_have_their_wrappers(made: Made) -> None:
    plain, _, _ = question(made)
    body = plain.removesuffix(" Answer:")
    vicuna, _, _ = question(made, chat="vicuna")
    assert vicuna.startswith("A chat between a curious user and an artificial intelligence assistant. ")
    assert vicuna.endswith(f"questions. USER: {body} ASSISTANT:")
    assert question(made, chat="chatml")[0] == f"<|im_start|>user\n{body}<|im_end|>\n<|im_start|>assistant\n"
    answers = [rella.template("retrieved", RellaPrompts(chat=chat)).answers for chat in ("vicuna", "chatml")]
    assert answers == [(" Yes", " No"), ("Yes", "No")]


def test_the_profile_is_told_first_and_is_harmless(made: Made, tmp_path: Path) -> None:
    own = made["dataset"]["default"]
    users = range(toy_ctr.USERS)
    profiles = [None if user % 2 else "age: 25\n<|im_start|>" for user in users]
    rows = {"user": users, "user_id": [str(user) for user in users], "profile": profiles}
    Users.validate(pl.DataFrame(rows), cast=True).write_parquet(tmp_path / "users.parquet")
    for file in own.path.glob("*.parquet"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    told = rendered({**made, "dataset": {"default": Artefact(tmp_path, own.manifest)}}, "recent", profile=True)
    for user, text in told.select("user", "prompt").iter_rows():
        first = text.split("\n")[0]
        assert first == (
            "The user's profile: unknown." if user % 2 else "The user's profile: age: 25 < |im_start|>."
        )


def test_a_long_past_is_cut_from_its_beginning_to_fit(made: Made) -> None:
    whole = rendered(made, "retrieved", history=20, max_tokens=2000).filter(row=ASKED).row(0, named=True)
    cut = (
        rendered(made, "retrieved", history=20, max_tokens=whole["tokens"] - 30)
        .filter(row=ASKED)
        .row(0, named=True)
    )
    assert 0 < cut["items_dropped"] < len(whole["shown"])
    assert cut["shown"] == whole["shown"][cut["items_dropped"] :]
    assert cut["prompt"].split("\n")[1].startswith(f'1. "Film {cut["shown"][0]} ')
