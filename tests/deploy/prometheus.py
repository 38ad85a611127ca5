"""Runs a real Prometheus for tests (Debian: apt-get install prometheus)."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.reliability.serving import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRAPE_SECONDS = 0.5
"""Seconds between two scrapes, and between two evaluations of the rules."""
_PAUSE = 0.2

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="prometheus is not installed"
)


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int):
        self._url = f"http://127.0.0.1:{port}/api/v1"

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the present samples of a query."""
        query = urllib.parse.urlencode({"query": expression})
        found: list[dict[str, Any]] = (await self._get(f"/query?{query}"))["result"]
        return found

    async def firing(self) -> dict[str, dict[str, str]]:
        """Return the labels of the alerts that fire, by their names."""
        alerts = (await self._get("/alerts"))["alerts"]
        return {alert["labels"]["alertname"]: alert["labels"] for alert in alerts if alert["state"] == "firing"}

    async def until_firing(self, name: str) -> dict[str, str]:
        """Wait until an alert fires, and return its labels."""
        while name not in (firing := await self.firing()):
            await asyncio.sleep(_PAUSE)
        return firing[name]

    async def _get(self, path: str) -> Any:
        def get() -> Any:
            try:
                with urllib.request.urlopen(self._url + path) as response:
                    return json.load(response)["data"]
            except urllib.error.HTTPError as error:
                raise AssertionError(error.read().decode()) from error

        return await asyncio.to_thread(get)


@contextlib.asynccontextmanager
async def scraping(folder: Path, port: int, rules: Mapping[str, Any] | None = None) -> AsyncIterator[Prometheus]:
    """Yield a Prometheus that scrapes the metrics on a port of this machine.

    Args:
        folder: an empty folder for its data and its configuration.
        port: the port of the metrics.
        rules: the alerts; None for none.
    """
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules or {"groups": []}))
    interval = f"{round(SCRAPE_SECONDS * 1000)}ms"
    config = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "nst", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    own_port = free_port()
    process = _start(folder, own_port)
    try:
        while True:
            assert process.poll() is None
            with contextlib.suppress(OSError):
                await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{own_port}/-/ready")
                break
            await asyncio.sleep(_PAUSE)
        yield Prometheus(own_port)
    finally:
        process.kill()
        process.wait()


def _start(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
    )
