"""Every view builds, on nothing and on a study, and says what its first line says."""

import re

import polars as pl
import pytest

from resources import warehouse
from resources.warehouse import SQL, query, read_view

VIEWS = sorted([*(SQL / "staging").glob("*.sql"), *(SQL / "marts").glob("*.sql")])
KEYS = {  # what one row of a mart is
    "answers": "answer",
    "leaderboard": "study, track, method, variant",
    "does_the_model_help": "study, track, method, variant, control, metric",
    "code_health": "study, stage, seed, entity",
    "code_places": "study, stage, seed, entity, place",
    "semantic_ids_with_titles": "study, stage, seed, item",
    "codes_with_titles": "study, stage, seed, entity, id",
    "prompts_with_scores": "study, method, variant, seed, part, row, form",
    "similar_items": "study, stage, item, rank",
    "user_journey": "study, row",
    "learning_curves": "study, stage, variant, seed, phase, metric, step",
    "costs": "study, track, method, variant",
    "rankings_with_titles": "study, track, method, variant, seed, part, user, rank",
    "recommendations": "study, user, rank",
    "quarantine_reasons": 'study, "table", file, "column", reason',
    "method_disagreement": "study, track, row",
}


def named(file) -> str:
    return f"{warehouse.SCHEMAS[file.parent.name]}.{file.stem}"


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nothing")
    return warehouse.publish(folder / "no-store", folder / "empty.duckdb")


@pytest.mark.parametrize("file", [file for file in VIEWS if file.stem != "published"], ids=lambda f: f.stem)
def test_view_builds_without_any_artefact(nothing, file):
    assert query(nothing, f"from {named(file)}").height == 0


@pytest.mark.parametrize("file", VIEWS, ids=lambda file: file.stem)
def test_view_has_the_same_types_with_and_without_rows(nothing, catalogue, file):
    empty, filled = query(nothing, f"from {named(file)}"), query(catalogue, f"from {named(file)}")
    assert empty.schema == filled.schema


@pytest.mark.parametrize(
    "file", [file for file in VIEWS if file.stem not in ("published",)], ids=lambda f: f.stem
)
def test_view_has_rows_on_a_study(catalogue, file):
    assert query(catalogue, f"from {named(file)}").height > 0


@pytest.mark.parametrize("file", VIEWS, ids=lambda file: file.stem)
def test_first_line_is_the_grain_and_the_catalogue_repeats_it(catalogue, file):
    grain = query(
        catalogue,
        f"select comment from duckdb_views() where schema_name || '.' || view_name = '{named(file)}'",
    ).item()
    assert grain == read_view(file)[0]
    assert grain.startswith("one row per ")


@pytest.mark.parametrize("file", VIEWS, ids=lambda file: file.stem)
def test_views_are_short_and_lower_case(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 90
    assert not re.findall(r"\b(SELECT|FROM|JOIN|WHERE|GROUP)\b", text)


@pytest.mark.parametrize("file", sorted((SQL / "staging").glob("*.sql")), ids=lambda file: file.stem)
def test_staging_renames_and_casts_only(file):
    assert not re.findall(r"\b(join|where|group by|union)\b", read_view(file)[1])


def test_every_mart_has_a_key():
    assert {file.stem for file in VIEWS if file.parent.name == "marts"} == set(KEYS)


@pytest.mark.parametrize(("mart", "key"), KEYS.items())
def test_one_row_is_what_the_grain_says(catalogue, mart, key):
    twice = query(catalogue, f"select {key}, count(*) as n from {mart} group by all having n > 1")
    assert twice.height == 0


def test_leaderboard_is_the_long_table_set_wide(catalogue):
    wide = query(catalogue, "from leaderboard where study = 'quickstart' and method = 'binllm'")
    long = query(
        catalogue,
        "from raw.leaderboard where study = 'quickstart' and method = 'binllm' and variant = 'dotted'",
    )
    row = wide.row(by_predicate=pl.col("variant") == "dotted", named=True)
    at = {(r["part"], r["metric"]): r for r in long.to_dicts()}
    assert row["auc"] == at["test", "auc"]["value"]
    assert row["auc_low"] == at["test", "auc"]["low"]
    assert row["uauc_high"] == at["test", "uauc"]["high"]
    assert row["log_loss"] == at["test", "log_loss"]["value"]
    assert row["valid_uauc"] == at["valid", "uauc"]["value"]
    assert row["seeds"] == 2


def test_leaderboard_says_what_each_row_is(catalogue):
    roles = query(catalogue, "select method, variant, role from leaderboard where study = 'quickstart'")
    assert dict(zip(roles["method"] + "/" + roles["variant"], roles["role"], strict=True)) == {
        "means/default": "baseline",
        "popularity/default": "baseline",
        "mf/default": "baseline",
        "binmf/default": "baseline",
        "tallrec/titles": "method",
        "binllm/dotted": "method",
        "binllm/without_codes": "control",
        "binllm/shuffled_codes": "control",
    }


def test_costs_count_own_stages_and_then_all_they_were_made_from(catalogue):
    own = query(
        catalogue,
        """select sum(seconds) / 2 from raw.artefacts
           where study = 'quickstart' and stage like 'binllm/%' and variant = 'dotted'""",
    ).item()
    inputs = query(
        catalogue,
        """select sum(seconds / case
               when stage in ('source', 'dataset', 'ctr/split', 'language_model') then 1 else 2 end)
           from raw.artefacts
           where study = 'quickstart' and (
               stage in ('source', 'dataset', 'ctr/split', 'language_model', 'binary_codes')
               or stage in ('tallrec/prompts', 'tallrec/adapter'))""",
    ).item()
    row = query(catalogue, "from costs where study = 'quickstart' and variant = 'dotted'").row(0, named=True)
    assert row["seconds"] == pytest.approx(own)
    assert row["seconds_with_inputs"] == pytest.approx(own + inputs)
    assert row["seconds"] >= 240 + 75
    assert row["trainable_parameters"] == 460_800
    assert row["tokens_seen"] == 250_000
    assert row["peak_memory_mb"] == 2300


def test_control_view_holds_the_control_question_only(catalogue):
    found = query(
        catalogue, "select distinct method, variant, control from does_the_model_help order by control"
    )
    assert found.rows() == [("binllm", "dotted", "shuffled_codes"), ("binllm", "dotted", "without_codes")]


def test_code_health_counts_what_was_made_up(catalogue):
    row = query(catalogue, "from code_health where study = 'quickstart' and entity = 'user' and seed = 1").row(
        0, named=True
    )
    codes = query(catalogue, "from raw.codes where study = 'quickstart' and entity = 'user' and seed = 1")[
        "bits"
    ]
    assert row["width"] == 16
    assert row["entities"] == len(codes)
    assert row["distinct_codes"] == codes.n_unique()
    assert row["share_in_collision"] == pytest.approx(codes.is_duplicated().mean())
    assert row["least_ones"] == 0  # the first bit never changes
    assert row["dead_places"] >= 1
    assert (row["kind"], row["room_bits"], row["least_usage"]) == ("binary", 16, 0.5)


def test_semantic_ids_and_binary_codes_stand_in_one_table(catalogue):
    found = query(catalogue, "from code_health where study = 'quickstart' and seed = 1 and entity = 'item'")
    rows = {row["kind"]: row for row in found.to_dicts()}
    assert set(rows) == {"binary", "semantic"}
    ids = rows["semantic"]
    assert (ids["stage"], ids["entities"], ids["width"], ids["values_a_place"]) == (
        "semantic_ids/lsh",
        16,
        2,
        4,
    )
    assert (ids["room_bits"], ids["distinct_codes"], ids["largest_collision"]) == (4, 8, 2)
    assert (ids["unique_share"], ids["share_in_collision"], ids["least_usage"]) == (0.5, 1, 0.5)
    assert ids["used_bits"] == pytest.approx(3)  # four values, then two of four, equally often
    assert (ids["share_trained"], ids["least_ones"]) == (None, None)


def test_every_level_of_every_code_is_counted(catalogue):
    found = query(
        catalogue,
        """select place, size, used, usage, perplexity, commonest from code_places
           where study = 'quickstart' and seed = 1 and kind = 'semantic' order by place""",
    )
    assert found.rows() == [(1, 4, 4, 1, pytest.approx(4), 0.25), (2, 4, 2, 0.5, pytest.approx(2), 0.5)]


def test_semantic_ids_stand_beside_their_titles_and_those_who_share_them(catalogue):
    rows = query(
        catalogue,
        """select item, title, codes, digit, holders from semantic_ids_with_titles
           where study = 'quickstart' and seed = 1 and item in (1, 9) order by item""",
    ).rows()
    assert [(item, codes, digit, holders) for item, _, codes, digit, holders in rows] == [
        (1, [1, 0], 0, 2),
        (9, [1, 0], 1, 2),
    ]
    assert rows[0][1] == '"><img src=x onerror="alert(1)">'


def test_codes_stand_beside_their_titles(catalogue):
    first = query(
        catalogue,
        "from codes_with_titles where study = 'quickstart' and seed = 1 and id = 0 order by entity",
    )
    assert first["title"].to_list() == ["<script>alert('title')</script>", "age: 30"]
    assert first["source_id"].to_list() == ["1", "u0"]


def test_prompts_stand_beside_their_scores_and_titles(catalogue):
    row = query(
        catalogue,
        """from prompts_with_scores
           where study = 'quickstart' and method = 'binllm' and variant = 'dotted'
               and seed = 2 and part = 'test'
           order by row limit 1""",
    ).row(0, named=True)
    pair = query(
        catalogue,
        f"""from raw.pairs where study = 'quickstart' and method = 'binllm' and variant = 'dotted'
            and seed = 2 and row = {row["row"]}""",
    ).row(0, named=True)
    assert (row["score"], row["label"]) == (pair["score"], pair["label"])
    assert all(title in row["prompt"] for title in (row["title"], *row["shown_titles"]))


def test_shown_titles_keep_the_order_of_the_history(catalogue):
    titles = dict(query(catalogue, "select item, title from raw.items where study = 'quickstart'").iter_rows())
    found = query(
        catalogue,
        """select shown_titles, shown from prompts_with_scores
           inner join staging.prompts using (study, method, variant, seed, part, row)
           where study = 'quickstart' and len(shown) > 2 limit 20""",
    )
    assert found.height == 20
    for told, items in found.iter_rows():
        assert told == [titles[item] for item in items]


def test_journey_follows_a_user_from_the_first_interaction(catalogue):
    journey = query(catalogue, "from user_journey where study = 'baselines' and user = 3")
    assert journey["at_time"].is_sorted()
    assert journey["history_length"].head(3).to_list() == [0, 1, 2]
    assert journey.filter(part="train")["scores"].null_count() == journey.filter(part="train").height
    scores = query(
        catalogue,
        """select distinct unnest(map_keys(scores)) as name from user_journey
           where study = 'baselines' and user = 3 order by name""",
    )
    assert scores["name"].to_list() == ["binmf/default", "means/default", "mf/default", "popularity/default"]


def test_learning_curves_carry_the_best_so_far(catalogue):
    curve = query(
        catalogue,
        "from learning_curves where study = 'baselines' and stage = 'mf' and metric = 'valid_auc'",
    )
    assert curve["best"].to_list() == curve["value"].cum_max().to_list()
    loss = query(
        catalogue,
        "from learning_curves where study = 'baselines' and stage = 'mf' and metric = 'train_loss'",
    )
    assert loss["best"].to_list() == loss["value"].cum_min().to_list()


def test_quarantine_counts_rows_and_shows_the_first(catalogue):
    row = query(catalogue, "from quarantine_reasons where study = 'quickstart'").row(0, named=True)
    assert (row["rows"], row["first_row"], row["first_value"]) == (3, 3, "9")


def test_disagreement_lies_between_nothing_and_one(catalogue):
    found = query(catalogue, "from method_disagreement where study = 'quickstart'")
    assert found["spread"].is_between(0, 1).all()
    assert found["spread"].is_sorted(descending=True)
    assert (found["methods"] == 8).all()
    assert (found["highest"] != found["lowest"]).all()


def test_tracks_do_not_share_what_models_of_one_name_cost(catalogue):
    rows = query(catalogue, "from leaderboard where study = 'ranked' and method = 'popularity' order by track")
    rows = rows.filter(~pl.col("track").str.starts_with("rerank/"))
    own = dict(query(catalogue, "select stage, seconds from raw.artefacts where study = 'ranked'").iter_rows())
    assert rows["track"].to_list() == ["ctr", "next_item"]
    assert rows["seconds"].to_list() == pytest.approx([own["popularity"], own["next_item/popularity"]])
    assert rows["ndcg_10"].is_null().to_list() == [True, False]


def test_orders_with_seen_items_kept_are_set_aside(catalogue):
    rows = query(
        catalogue, "select method, variant, role from leaderboard where track = 'next_item' order by all"
    )
    assert rows.rows() == [
        ("popularity", "default", "baseline"),
        ("sasrec", "default", "baseline"),
        ("sasrec", "seen_kept", "aside"),
    ]


def test_recommendations_are_what_validation_chose_and_say_how_well_known_an_item_is(catalogue):
    found = query(catalogue, "from recommendations where user = 3")
    assert found["rank"].to_list() == list(range(1, 21))
    valid = query(
        catalogue,
        "select method, valid_ndcg_10 from leaderboard where track = 'next_item' and variant = 'default'",
    )
    assert found["method"].unique().to_list() == valid.top_k(1, by="valid_ndcg_10")["method"].to_list()
    rows = dict(query(catalogue, "select item, train_rows from raw.catalogue").iter_rows())
    assert found["train_rows"].to_list() == [rows[item] for item in found["item"]]


def test_lists_of_the_rerank_track_stand_beside_the_catalogue_in_words(catalogue):
    found = query(
        catalogue,
        """select track, count(*) as places, count(train_rows) as known from rankings_with_titles
           where part = 'test' and user = 3 and seed = 1 and variant = 'default' and track like 'rerank/%'
           group by all order by all""",
    )
    assert found.rows() == [
        ("rerank/random_10", 10, 10),
        ("rerank/random_20", 20, 20),
        ("rerank/retrieved_50", 20, 20),
    ]


def test_each_kind_of_list_has_its_rows_of_the_leaderboard(catalogue):
    found = query(
        catalogue,
        "select track, method, hr_1, hr_10, seconds from leaderboard where track like 'rerank/%' order by all",
    )
    assert found["track"].to_list() == sorted(
        ["rerank/random_10", "rerank/random_20", "rerank/retrieved_50"] * 2
    )
    assert found["hr_1"].is_between(0, 1).all()
    assert found["seconds"].null_count() == 6  # one stage asks all models again: it is the cost of none
    assert found.filter(track="rerank/random_10")["hr_10"].null_count() == 2  # ten of ten: says nothing


def test_rankings_are_the_first_of_each_list_in_words(catalogue):
    found = query(
        catalogue,
        """from rankings_with_titles
           where track = 'next_item' and method = 'sasrec' and variant = 'default' and seed = 1
               and part = 'test' and user = 3""",
    )
    long = query(
        catalogue,
        """from raw.rankings
           where track = 'next_item' and method = 'sasrec' and variant = 'default' and seed = 1
               and part = 'test' and user = 3 and score is not null
           order by rank""",
    )
    titles = dict(query(catalogue, "select item, title from raw.items where study = 'ranked'").iter_rows())
    assert found["item"].to_list() == long["item"].to_list()[:20]
    assert found["title"].to_list() == [titles[item] for item in found["item"]]
    assert set(found["user_id"]) == {"u3"}


def test_an_answer_stands_once_with_what_all_its_records_took(catalogue):
    rows = query(catalogue, "select prompt, status, text, calls, price, tokens_in from answers order by prompt")
    assert rows.rows() == [
        ("Alien?", "refused", "", 2, 0.25, 10),
        ("Heat?", "answered", "Thieves.", 4, 0.5, 10),
    ]


def test_a_torn_record_of_an_answer_is_left_out(catalogue):
    assert query(catalogue, "select count(*) from staging.answers").item() == 3
