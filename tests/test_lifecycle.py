import pytest
from nst_service.lifecycle import JobState


@pytest.mark.parametrize("state", JobState)
def test_a_job_goes_nowhere_from_a_terminal_state_and_somewhere_from_every_other(state: JobState) -> None:
    successors = {other for other in JobState if state in other.predecessors}
    assert state.is_terminal == (not successors)


def test_only_a_running_job_succeeds() -> None:
    assert JobState.SUCCEEDED.predecessors == {JobState.RUNNING}


def test_a_running_job_can_go_back_into_the_queue() -> None:
    assert JobState.QUEUED.predecessors == {JobState.RUNNING}
