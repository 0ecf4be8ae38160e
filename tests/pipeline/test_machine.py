"""The machine as it is seen by stages, and by a dry run."""

import subprocess
import sys

from pipeline.machine import GIB, Forecast, Machine, gib, this_machine


def test_memory_is_told_in_one_unit() -> None:
    assert gib(1.25 * GIB) == "1.2 GiB"


def test_the_machine_of_a_stage_has_memory_and_as_many_workers_as_torch_has_threads() -> None:
    import torch

    found = this_machine()
    assert found.free > 0
    assert found.accelerator == torch.cuda.is_available()
    assert found.workers == (1 if found.accelerator else torch.get_num_threads())


def test_what_is_expected_stands_in_the_manifests_units() -> None:
    assert Forecast(3 * 2**20, seconds=1.26).measures() == {"expected_memory_mb": 3.0, "expected_seconds": 1.3}
    assert Forecast(2**20).measures()["expected_seconds"] is None


def test_a_forecast_that_just_fits_is_not_refused() -> None:
    assert Forecast(7).too_much(Machine(free=7)) == ""
    assert "on H100" in Forecast(8).too_much(Machine(free=7, device="H100", accelerator=True))


def test_a_dry_run_looks_without_torch() -> None:
    code = (
        "import sys; from resources import machine; found = machine.look(3)\n"
        "print(found.workers, found.free > 0, 'torch' in sys.modules or machine.DRIVER.exists())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[1:] in (["True", "False"], ["True", "True"])
