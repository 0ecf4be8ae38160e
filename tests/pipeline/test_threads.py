"""Jobs side by side: in order, one thread each, and torch's own number as it was."""

import threading

import pytest
import torch

from pipeline.threads import one_thread, side_by_side

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_jobs(threads: int) -> None:
    assert list(side_by_side(lambda job: job * job, range(20), CPU)) == [job * job for job in range(20)]


def test_every_job_multiplies_on_one_thread_and_the_number_comes_back(threads: int) -> None:
    assert set(side_by_side(lambda job: torch.get_num_threads(), range(6), CPU)) == {1}
    assert torch.get_num_threads() == threads


def test_as_many_jobs_run_at_once_as_torch_may_take_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    meeting = threading.Barrier(3, timeout=20)  # breaks unless three are there together
    assert len(list(side_by_side(lambda job: meeting.wait(), range(3), CPU))) == 3
    torch.set_num_threads(before)


def test_the_same_threads_serve_again(threads: int) -> None:
    served = {one for _ in range(5) for one in side_by_side(lambda job: threading.get_ident(), range(9), CPU)}
    assert len(served) <= threads


def test_a_job_that_fails_is_heard_of(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda job: 1 // job, [2, 1, 0], CPU))
    assert torch.get_num_threads() == threads


def test_one_thread_gives_the_number_back_after_an_error() -> None:
    def fails() -> None:
        with one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError

    before = torch.get_num_threads()
    with pytest.raises(KeyError):
        fails()
    assert torch.get_num_threads() == before
