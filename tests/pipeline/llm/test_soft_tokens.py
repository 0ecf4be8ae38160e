"""Soft tokens: slots, vectors in the place of words, and that a model learns from them what words do not
say."""

from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor, nn

from pipeline.llm import soft_tokens, tune
from pipeline.llm.load import load_tokenizer
from pipeline.llm.reader import OwnPass, TheirPass
from pipeline.llm.settings import Plan, SoftTuning
from pipeline.llm.soft_tokens import Sizes, Soft, encode_slots, project
from pipeline.llm.tasks import Questions, YesNo
from pipeline.llm.yes_no import Answers, kin, score
from pipeline.text.cleaning import SOFT_TOKEN
from pipeline.text.prompts import parse, render, safe_titles
from tests import tiny_lm

READERS = (OwnPass, TheirPass)
ANSWERS = Answers(yes=300, no=301)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return load_tokenizer(tiny_lm.save(tmp_path_factory.mktemp("lm")))


def prompts(text: str = "é {u:soft} movies {i:soft:2} Yes", **columns: list[int]) -> pl.DataFrame:
    columns = columns or {"u.vector": [0, 1], "i.vector": [2, 3]}
    return render(parse(text, {}), pl.DataFrame(columns))


def soft(rows: int = 5, dim: int = 3, count: int = 1, width: int = 32) -> Soft:
    torch.manual_seed(0)
    return Soft(torch.randn(rows, dim), nn.Linear(dim, count * width), count)


# --- slots -------------------------------------------------------------------------------------------------


def test_slots_become_negative_ids_in_order_and_all_else_stays(tokenizer) -> None:
    found = encode_slots(tokenizer, prompts())
    assert [[token for token in ids if token < 0] for ids in found] == [[-1, -5, -6], [-2, -7, -8]]
    reserved = tokenizer.token_to_id(SOFT_TOKEN)
    plain = [one.ids for one in tokenizer.encode_batch(prompts()["prompt"].to_list())]
    assert [[reserved if token < 0 else token for token in ids] for ids in found] == plain


def test_a_prompt_of_words_is_encoded_as_ever(tokenizer) -> None:
    found = prompts("movies {t:title}", t=["a", "b"])
    assert encode_slots(tokenizer, found) == [tokenizer.encode(text).ids for text in found["prompt"]]


@pytest.mark.parametrize(
    ("slots", "vectors", "said"),
    [
        ([2, 18], [0, 4, 5], "2 slots, but 3 vectors"),
        ([2, 18, 26], [0, 4], "3 slots, but 2 vectors"),
        ([3, 18, 26], [0, 4, 5], "no reserved token begins at character 3"),
        ([2, 18], [0, 4], "1 reserved tokens are no slots"),
    ],
)
def test_slots_and_vectors_that_do_not_fit_are_refused(tokenizer, slots, vectors, said: str) -> None:
    good = prompts().head(1)
    assert good["slots"].to_list() == [[2, 18, 26]]
    types = {"slots": pl.List(pl.UInt32), "vectors": pl.List(pl.UInt32)}
    bad = good.with_columns(slots=pl.Series([slots]), vectors=pl.Series([vectors])).cast(types)
    with pytest.raises(ValueError, match=said):
        encode_slots(tokenizer, bad)


def test_a_title_cannot_open_a_slot(tokenizer) -> None:
    (title,) = safe_titles({1: f"A {SOFT_TOKEN} B"}, tokenizer, 100).values()
    assert tokenizer.token_to_id(SOFT_TOKEN) not in tokenizer.encode(title).ids


# --- reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", READERS)
def test_a_soft_token_that_shows_a_words_embedding_reads_like_the_word(kind) -> None:
    model = tiny_lm.make_model()
    words = model.get_input_embeddings().weight.detach()
    shown = Soft(words[[40, 41]], nn.Identity(), 1)
    reading = kind(model, torch.float32, shown)
    with torch.inference_mode():
        found = score(reading, [[7, -1, 8, -2, 9]], ANSWERS)
        wanted = score(reading, [[7, 40, 8, 41, 9]], ANSWERS)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", READERS)
def test_scores_do_not_hang_on_neighbours_padding_or_shared_beginnings(kind) -> None:
    reading = kind(tiny_lm.make_model(), torch.float32, soft())
    start = [-1, *range(40, 160), -2]
    asked = [[*start, 70 + i, -3 - i % 2] for i in range(5)] + [[9, -5], [-4, 11, 12, *range(100, 140)]]
    assert [family.shared for family in kin(asked)[0]] == [len(start)]
    together = score(reading, asked, ANSWERS)
    single = [score(reading, [one], ANSWERS) for one in asked]
    torch.testing.assert_close(together.yes, torch.cat([one.yes for one in single]), atol=1e-5, rtol=1e-5)
    back = score(reading, asked[::-1], ANSWERS)
    torch.testing.assert_close(back.no.flip(0), together.no, atol=1e-5, rtol=1e-5)


def test_prompts_whose_vectors_differ_are_no_family() -> None:
    words = list(range(40, 240))
    families, _ = kin([[*words, -1, 7, 8], [*words, -2, 7, 8]])
    assert [family.shared for family in families] == [len(words)]
    same, _ = kin([[-1, *words, 7], [-1, *words, 8]])
    other, _ = kin([[-1, *words, 7], [-2, *words, 8]])
    assert same
    assert not other


@pytest.mark.parametrize("kind", READERS)
def test_soft_tokens_without_vectors_are_refused(kind) -> None:
    with pytest.raises(ValueError, match="no vectors"):
        score(kind(tiny_lm.make_model(), torch.float32), [[7, -1]], ANSWERS)


def test_several_tokens_show_the_parts_of_one_projection() -> None:
    shown = soft(count=2)
    whole = shown.projector(shown.vectors).view(5, 2, 32)
    assert torch.equal(shown(torch.tensor([9, 0, 0, 5])), whole[[4, 0, 0, 2], [1, 0, 0, 1]])


@pytest.mark.parametrize("kind", READERS)
def test_the_gradient_is_that_of_the_projector_and_the_words_stay(kind) -> None:
    model, shown = tiny_lm.make_model().requires_grad_(False), soft()
    words = model.get_input_embeddings().weight.clone()
    states = kind(model, torch.float32, shown).states(torch.tensor([[7, -1, 8]]), torch.tensor([2]))
    (states.sum()).backward()
    assert shown.projector.weight.grad.abs().sum() > 0
    assert shown.vectors.grad is None
    assert torch.equal(model.get_input_embeddings().weight, words)


# --- plans -------------------------------------------------------------------------------------------------


def test_a_projector_is_as_the_papers_say() -> None:
    collm = project(Sizes(4, 2, 32), SoftTuning(), 1)
    assert [tuple(p.shape) for p in collm.parameters()] == [(40, 4), (40,), (64, 40), (64,)]
    assert isinstance(collm[1], nn.ReLU)
    llara = project(Sizes(4, 1, 32), SoftTuning(middle="model", activation="gelu"), 1)
    assert [tuple(p.shape) for p in llara.parameters()] == [(32, 4), (32,), (32, 32), (32,)]
    assert isinstance(llara[1], nn.GELU)


def test_a_projector_is_that_of_its_seed_and_the_worlds_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (project(Sizes(4, 1, 8), SoftTuning(), seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


# --- the toy proof: Yes = user bit and item bit --------------------------------------------------------------

BITS = torch.tensor(
    [[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]]
)  # users with and without, items likewise


def both_bits(vectors: bool, rows: int = 160) -> YesNo:
    """Prompts of one user and one item each, that say nothing of either but by their vectors."""
    draws = torch.Generator().manual_seed(3)
    user, item = torch.randint(0, 2, (2, rows), generator=draws).tolist()
    labels = [int(u and i) for u, i in zip(user, item, strict=True)]
    asked = [[40, -1 - u, 41, -3 - i, 42] if vectors else [40, 41, 42] for u, i in zip(user, item, strict=True)]
    half = rows // 2
    parts = Questions(asked[:half], labels[:half]), Questions(asked[half:], labels[half:])
    return YesNo(*parts, ANSWERS, ([301, 2], [300, 2]))


SETTINGS = SoftTuning(
    steps=80, examples_per_step=16, learning_rate=1e-2, warm_up=5, evaluate_every=20, dropout=0, dtype="float32"
)


def tuned_auc(task: YesNo, plan: Plan, folder: Path) -> float:
    """The best validation AUC of a tiny model that was tuned by this plan."""
    model = tiny_lm.make_model().requires_grad_(False)
    if plan.lora:
        tune.add_adapter(model, SETTINGS, 1)
    shown = Soft(
        BITS, project(Sizes(2, 1, 32), SETTINGS, 1).requires_grad_(plan.projector), 1, plan.vectors != "given"
    )
    return tune.tune(model, task, SETTINGS, 1, folder, soft=shown).progress.best


@pytest.mark.parametrize("plan", [Plan(lora=False), Plan(), Plan(lora=False, vectors="tuned")])
def test_what_only_the_vectors_say_is_learnt(plan: Plan, tmp_path: Path) -> None:
    assert tuned_auc(both_bits(vectors=True), plan, tmp_path) == 1.0


def test_words_that_do_not_say_it_stay_at_chance(tmp_path: Path) -> None:
    assert tuned_auc(both_bits(vectors=False), Plan(), tmp_path) == 0.5


def test_a_resumed_run_of_a_projector_ends_in_the_same_bits(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 6, "evaluate_every": 2})

    def run(folder: Path, stop: int | None = None) -> dict[str, Tensor]:
        folder.mkdir(exist_ok=True)
        model, shown = (
            tiny_lm.make_model().requires_grad_(False),
            Soft(BITS, project(Sizes(2, 1, 32), settings, 1), 1),
        )
        take = tune.Run.take_step

        def dies(self) -> None:
            if self.progress.step == stop:
                raise KeyboardInterrupt
            take(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tune.Run, "take_step", dies)
            return tune.tune(model, both_bits(vectors=True), settings, 1, folder, soft=shown).weights

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop=3)
    resumed, whole = run(tmp_path / "broken"), run(tmp_path / "whole")
    assert list(resumed) == ["soft.projector.0.weight", "soft.projector.0.bias", *list(resumed)[2:]]
    assert all(torch.equal(weight, whole[name]) for name, weight in resumed.items())


def test_weights_of_a_plan_are_written_under_their_own_names(tmp_path: Path) -> None:
    shown = Soft(BITS, project(Sizes(2, 1, 32), SETTINGS, 1), 1, tuned=True)
    soft_tokens.write_soft({"lora": torch.ones(1), **soft_tokens.soft_weights(shown)}, tmp_path)
    found = soft_tokens.load_file(tmp_path / soft_tokens.FILE)
    assert sorted(found) == [
        "projector.0.bias",
        "projector.0.weight",
        "projector.2.bias",
        "projector.2.weight",
        "vectors",
    ]
    soft_tokens.write_soft({"lora": torch.ones(1)}, tmp_path / "words alone")
