"""The dashboard shows data of a real server under load, in a real Prometheus."""

import asyncio
import contextlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_service.telemetry import catalogue

from tests.deploy.prometheus import DEPLOY, Prometheus, needs_prometheus, scraping
from tests.telemetry.serving import Service, refused, serving

_DASHBOARD = json.loads((DEPLOY / "grafana" / "nst.json").read_text())
_METRIC = re.compile(r"\bnst_\w+")
_SUFFIXES = ("_bucket", "_sum", "_count")
_NO_DATA_WITHOUT_TLS = {"Certificate expires in"}


def queries() -> Iterator[tuple[str, str]]:
    """Yield the title of each panel and each of its queries."""
    for panel in _DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def substituted(expression: str) -> str:
    """Return a query with the variables of Grafana replaced."""
    text = expression.replace("$__rate_interval", "30s").replace("$job", ".*").replace("$instance", ".*")
    assert "$" not in text
    return text


def test_every_metric_of_the_dashboard_exists_and_every_metric_is_on_the_dashboard():
    names = set()
    for _, expression in queries():
        for name in _METRIC.findall(expression):
            names.add(next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name))
    documented = {metric.name for topic, metrics in catalogue.GROUPS if topic != "Owners" for metric in metrics}
    assert names - documented == set()
    assert documented - names == {"nst_draining"}


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    panels = _DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


@needs_prometheus
@pytest.mark.usefixtures("quick_start")
async def test_every_query_of_every_panel_gives_data_of_a_server_under_load(
    request_: pb.StylizeRequest, tmp_path: Path
):
    async with (
        serving(metrics_address="127.0.0.1:0", checkpoint_seconds=0.0, max_running=1) as service,
        scraping(tmp_path, service.server.metrics_port) as prometheus,
    ):
        load = asyncio.create_task(_load(service, request_))
        try:
            for title, query in queries():
                while not await _has_data(prometheus, title, query):
                    assert not load.done()
                    print(f"{title} has no data yet: {query}")
                    await asyncio.sleep(1)
        finally:
            load.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await load


async def _load(service: Service, request: pb.StylizeRequest) -> None:
    """Run jobs, some at once, and send a request that is refused, until cancelled."""
    request.options.iterations = 8
    while True:
        await asyncio.gather(
            refused(service.stub.Stylize(request)),
            refused(service.stub.Stylize(request)),
            refused(service.stub.Stylize(pb.StylizeRequest())),
            refused(service.stub.ListJobs(pb.ListJobsRequest())),
        )


async def _has_data(prometheus: Prometheus, title: str, query: str) -> bool:
    samples: list[dict[str, Any]] = await prometheus.query(substituted(query))
    if title in _NO_DATA_WITHOUT_TLS:
        return bool(samples)
    return any(math.isfinite(float(sample["value"][1])) for sample in samples)
