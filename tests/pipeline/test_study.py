"""Studies: strict YAML, and errors that say what to write instead."""

from pathlib import Path

import pytest

from pipeline.study import StudyError, find, load, names


def write(folder: Path, text: str, name: str = "mine") -> Path:
    file = folder / "studies" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_a_study_of_one_line_has_sane_defaults(tmp_path: Path) -> None:
    study = load(write(tmp_path, "title: Mine\nmethods:\n"))
    assert (study.name, study.title, study.seeds, study.methods) == ("mine", "Mine", (1,), {})
    assert study.words.item == "item"
    assert study.budget.place == "here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titel: Mine\ntitle: x", "unknown key 'titel'; did you mean 'title'"),
        ("title: x\nwords: {itme: movie}", "unknown key 'words.itme'; did you mean 'item'"),
        ("title: x\nbudget: {place: moon}", "budget.place: Input should be 'here' or 'process'"),
        ("title: x\nseeds: []", "seeds: "),
        ("title: x\nseeds: [one]", "given: 'one'"),
        ("title: x\nseeds: [3, 1, 3]", "seeds: Value error, 3 is there twice"),
        ("- a list", "a study is a mapping"),
        ("title: [", "not valid YAML"),
        ("{}", "title: Field required"),
    ],
)
def test_errors_name_the_file_the_key_and_the_nearest_known(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StudyError) as error:
        load(write(tmp_path, text))
    assert "mine.yaml" in str(error.value)
    assert message in str(error.value)


REPEATED = """title: x
methods:
  tallrec: &tuning {epochs: 1}
  binllm:
    <<: *tuning
    epochs: 2
  tallrec: {epochs: 3}
seeds: [1]
models: {mf: {lr: 1, "lr": 2}}
title: y
"""


def test_a_key_that_stands_twice_is_named_with_both_its_lines(tmp_path: Path) -> None:
    file = write(tmp_path, REPEATED)
    with pytest.raises(StudyError) as error:
        load(file)
    assert str(error.value).splitlines() == [
        f"{file}, line 7: the key 'tallrec' stands twice, first in line 3",
        f"{file}, line 9: the key 'lr' stands twice, first in line 9",
        f"{file}, line 10: the key 'title' stands twice, first in line 1",
    ]


def test_keys_in_lists_are_looked_at_too(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="line 2: the key 'file' stands twice"):
        load(write(tmp_path, "title: x\ndata: {tables: [{file: a, file: b}]}\n"))


def test_anchors_and_merged_keys_may_be_written_again(tmp_path: Path) -> None:
    text = "title: x\nmethods:\n  a: &a {x: 1, y: 1}\n  b: *a\n  c: {<<: *a, x: 2}\n  d: {<<: *a, x: 3}\n"
    study = load(write(tmp_path, text))
    assert study.methods["b"] == {"x": 1, "y": 1}
    assert (study.methods["c"], study.methods["d"]) == ({"x": 2, "y": 1}, {"x": 3, "y": 1})


def test_an_unknown_study_is_answered_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "title: x", "quickstart")
    write(tmp_path, "title: x", "own-data.example")
    assert names(tmp_path) == ["quickstart"]
    with pytest.raises(StudyError, match="did you mean 'quickstart'"):
        find(tmp_path, "quikstart")


def test_the_shipped_studies_load() -> None:
    root = Path(__file__).parents[2]
    assert {"quickstart", "ml-100k", "ml-1m"} <= set(names(root))
    for name in names(root):
        assert load(find(root, name)).title


def test_no_error_repeats_a_secret(tmp_path: Path) -> None:
    for text in ("title: [https://ann:pass@host/", "title: {a: 'https://host/?token=pass'}"):
        with pytest.raises(StudyError) as error:
            load(write(tmp_path, text))
        assert "pass" not in str(error.value)
        assert "***" in str(error.value)
