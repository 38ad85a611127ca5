"""The time in which a server stops is one number in the code, the image, the help and the guides."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from nst_service import cli, server
from nst_service.config import ServerConfig
from nst_service.jobs import scheduler

ROOT = Path(__file__).parents[2]
AFTER_GRACE = scheduler._LAST_STEP_SECONDS + scheduler._STORE_SECONDS + server._FLUSH_SECONDS + server._CLOSE_SECONDS
STOP_SECONDS = ServerConfig().grace + AFTER_GRACE


@pytest.mark.parametrize("file", ["Dockerfile", "docs/running.md"])
def test_a_container_gets_the_time_that_a_server_needs_to_stop(file):
    text = (ROOT / file).read_text()
    assert {float(number) for number in re.findall(r"--stop-timeout (\d+)", text)} == {STOP_SECONDS}
    for name in ("TimeoutStopSec=", "terminationGracePeriodSeconds: "):
        assert {float(number) for number in re.findall(name + r"(\d+)", text)} <= {STOP_SECONDS}


def test_the_help_says_when_a_server_has_stopped():
    text = " ".join(CliRunner().invoke(cli.main, ["--help"]).output.split())
    assert f"at most {AFTER_GRACE:g} s after the grace period, which is {STOP_SECONDS:g} s after the signal" in text
