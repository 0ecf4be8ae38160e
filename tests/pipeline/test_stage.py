"""Stages: identity, cache, checks, manifest, and what a draft refuses."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pipeline.graph import Graph
from pipeline.stage import (
    Check,
    Draft,
    Source,
    Spec,
    StageFailed,
    Verdict,
    blame,
    computed_on,
    declared,
    fingerprint,
    judge,
    run,
    stage,
    watch,
)
from pipeline.store import Store
from pipeline.study import StudyError
from tests import toy
from tests.assets import stages


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def plan(store: Store, tmp_path: Path):
    return lambda **sections: toy.GRAPH.plan(toy.study(**sections), store, tmp_path)


def identity(**changes) -> str:
    facts = {
        "stage": toy.numbers,
        "settings": {"count": 3},
        "cell": {},
        "inputs": {"a": Source("x", "1")},
        "outside": {},
        **changes,
    }
    return fingerprint(**facts)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": replace(toy.numbers, version=2)},
        {"stage": replace(toy.numbers, name="other")},
        {"settings": {"count": 4}},
        {"cell": {"seed": 1}},
        {"inputs": {"a": Source("x", "2")}},
        {"inputs": {"a": (Source("x", "1"),)}},
        {"outside": {"file": "changed"}},
        {"threads": 1},
    ],
)
def test_whatever_decides_the_result_changes_the_fingerprint(change: dict) -> None:
    assert identity(**change) != identity()


def test_the_order_of_settings_does_not_change_the_fingerprint() -> None:
    assert identity(settings={"a": 1, "b": 2}) == identity(settings={"b": 2, "a": 1})


def test_a_second_run_is_a_hit_and_computes_nothing(plan) -> None:
    first, hit = run(plan()[0].spec)
    assert not hit
    second, hit = run(plan()[0].spec)
    assert hit
    assert second.manifest == first.manifest


def test_a_hit_imports_nothing_heavy(plan, tmp_path: Path) -> None:
    spec = plan()[0].spec
    run(spec)
    file = tmp_path / "spec.json"
    file.write_text(spec.to_json())
    code = (
        "import sys; from pathlib import Path; from pipeline.stage import Spec, run\n"
        f"hit = run(Spec.from_json(Path({str(file)!r}).read_text()))[1]\n"
        "print(hit, 'torch' in sys.modules, 'tests.toy' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["True", "False", "False"]


def test_a_spec_survives_json(plan) -> None:
    for planned in plan(seeds=(1, 2)):
        assert Spec.from_json(planned.spec.to_json()) == replace(planned.spec, cell=dict(planned.spec.cell))


def test_the_manifest_tells_what_it_was_made_of(plan) -> None:
    made = [run(p.spec)[0] for p in plan(data={"numbers": {"count": 5}})]
    numbers, doubled = made[0], made[1]
    assert numbers.manifest["settings"] == {"count": 5, "file": None}
    assert numbers.manifest["tables"]["codes"]["rows"] == 5
    assert numbers.manifest["checks"]["some_rows"] == {
        "passed": True,
        "blocking": True,
        "description": "5 rows",
        "facts": {"rows": 5},
    }
    assert declared(numbers.manifest["reference"]).name == "numbers"
    assert doubled.manifest["made_from"] == [{"stage": "numbers", "fingerprint": numbers.fingerprint}]
    assert doubled.manifest["cell"] == {"seed": 1}
    assert doubled.measured["seconds"] >= 0
    assert doubled.measured["peak_memory_mb"] > 1
    assert len(numbers.manifest["files"]["codes.parquet"]["sha256"]) == 64


def test_two_runs_give_the_same_files_bit_for_bit(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        plan = toy.GRAPH.plan(toy.study(seeds=(1, 2)), Store(tmp_path / name), tmp_path)
        files.append([run(p.spec)[0].manifest["files"] for p in plan])
    assert files[0] == files[1]


def test_a_failing_check_is_recorded_and_the_artefact_kept(plan) -> None:
    artefact, _ = run(plan(data={"numbers": {"count": 0}})[0].spec)
    assert artefact.manifest["checks"]["some_rows"]["passed"] is False


def test_a_stage_that_raises_leaves_no_artefact_and_is_named(plan, store: Store) -> None:
    planned = plan(models={"doubled": {"times": 3}})[1]
    broken = replace(planned.spec, inputs={"numbers": ()})
    place = r"\(AttributeError in tests.toy, line \d+\)"
    with pytest.raises(StageFailed, match=rf"^doubled \(seed 1\) of study toy: .*table.* {place}$"):
        run(broken)
    assert store.find("doubled", planned.spec.fingerprint) is None


def test_a_missing_input_is_an_error_before_anything_runs(plan) -> None:
    with pytest.raises(FileNotFoundError, match="numbers"):
        run(plan()[1].spec)


@pytest.fixture
def draft(tmp_path: Path, plan) -> Draft:
    return Draft(tmp_path, toy.numbers, plan()[0].spec, tmp_path)


def test_a_draft_refuses_a_table_that_breaks_its_schema(draft: Draft) -> None:
    with pytest.raises(Exception, match="bits"):
        draft.table("codes", pl.DataFrame({"entity": ["user"], "id": [1]}))


@pytest.mark.parametrize("kind", ["frame", "query", "frames"])
def test_a_table_may_come_whole_or_as_a_query_or_in_frames(draft: Draft, kind: str) -> None:
    rows = {"entity": ["user"] * 3, "id": range(3), "bits": "0", "dotted": "0", "trained": True}
    whole = pl.DataFrame(rows)
    draft.table("codes", {"frame": whole, "query": whole.lazy(), "frames": iter([whole[:1], whole[1:]])}[kind])
    assert draft.read("codes").equals(whole.cast({"id": pl.UInt32}))
    assert draft.scan("codes").select("id").collect()["id"].to_list() == [0, 1, 2]
    assert draft.shapes["codes"] == {"rows": 3, "columns": whole.columns}


def test_a_draft_refuses_a_table_that_was_not_declared(draft: Draft) -> None:
    with pytest.raises(KeyError, match="surprise"):
        draft.table("surprise", pl.DataFrame())


def test_tensors_and_json_come_back(draft: Draft) -> None:
    import torch

    from pipeline.store import Artefact

    draft.tensors("w", {"a": torch.arange(6).reshape(2, 3).T})
    draft.json("facts", {"x": [1, 2]})
    read = Artefact(draft.path, {})
    assert torch.equal(read.tensors("w")["a"], torch.arange(6).reshape(2, 3).T)
    assert read.json("facts") == {"x": [1, 2]}


def test_pictures_of_equal_data_are_equal_files(draft: Draft) -> None:
    from matplotlib.figure import Figure

    seen = []
    for _ in range(2):
        figure = Figure()
        figure.subplots().plot([1, 2, 3])
        draft.picture("line", figure)
        seen.append((draft.path / "pictures/line.svg").read_bytes())
    assert seen[0] == seen[1]


def test_a_verdict_becomes_plain_json(draft: Draft) -> None:
    def never(draft, inputs, settings) -> Verdict:
        """Always false."""
        return Verdict(False, "no", {"why": 1})

    shown = judge(Check(never, blocking=False), draft, {}, toy.Numbers())
    assert json.loads(json.dumps(shown)) == {
        "passed": False,
        "blocking": False,
        "description": "no",
        "facts": {"why": 1},
    }
    assert Check(never).description == "Always false."


def test_watch_sees_the_memory_of_the_body() -> None:
    with watch(toy.numbers) as empty:
        pass
    with watch(toy.numbers) as full:
        block = bytearray(200 * 2**20)
        block[::4096] = b"x" * len(block[::4096])
        import time

        time.sleep(0.12)
    assert full["peak_memory_mb"] > empty["peak_memory_mb"] + 150
    assert full["seconds"] > 0.1


@stage("settled", settings=toy.Board, section="evaluate", version=1)
def refuses(settings, out) -> None:
    """Find fault with the study."""
    raise StudyError("nothing can come of this, see https://ann:pass@host/")


@pytest.mark.parametrize(
    ("key", "named"), [("settled", "evaluate.settled"), ("ctr/split", "evaluate.ctr.split")]
)
def test_a_fault_of_the_study_is_told_with_its_file_and_key_and_no_secret(plan, key: str, named: str) -> None:
    told = blame(StudyError("wrong, see https://ann:pass@host/"), replace(refuses, name=key), plan()[0].spec)
    assert told == f"studies/toy.yaml: {named}: wrong, see https://***@host/"


def test_a_stage_that_finds_fault_with_the_study_says_so(plan) -> None:
    spec = replace(plan()[0].spec, reference=f"{__name__}:refuses", settings={})
    with pytest.raises(StageFailed, match=r"^studies/toy.yaml: evaluate.settled: nothing can come of this"):
        run(spec)


class Cuda:
    """An accelerator as torch shows one."""

    @staticmethod
    def get_device_name() -> str:
        return "Accelerator 9"

    @staticmethod
    def max_memory_allocated() -> int:
        return 3 * 2**20


@pytest.mark.parametrize(
    ("needs", "device"), [("light", "cpu"), ("chat", "cpu"), ("heavy", "cpu"), ("gpu", "Accelerator 9")]
)
def test_only_a_stage_that_uses_an_accelerator_says_so(
    monkeypatch: pytest.MonkeyPatch, needs: str, device: str
) -> None:
    monkeypatch.setattr("pipeline.stage.accelerator", lambda: Cuda)
    found = computed_on(replace(toy.numbers, needs=needs))
    assert found["device"] == device
    assert ("peak_gpu_memory_mb" in found) == (needs == "gpu")


def test_a_heavy_stage_says_with_how_many_threads_and_in_which_precision(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    graph = Graph([stages.heavy])
    for threads in (1, 2):
        study = toy.study(methods={}, budget={"threads": threads})
        artefact, _ = run(graph.plan(study, Store(tmp_path), tmp_path)[0].spec)
        found = {key: artefact.measured.get(key) for key in ("threads", "dtype", "device")}
        assert found == {"threads": threads, "dtype": "float32", "device": "cpu"}
        assert artefact.manifest["environment"]["libraries"]["torch"]
    assert torch.get_num_threads() == before


def test_a_light_stage_has_no_threads_to_tell(plan) -> None:
    assert "threads" not in run(plan(budget={"threads": 1})[0].spec)[0].measured
