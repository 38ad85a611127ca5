"""The page of the metrics, from the catalogue of the server."""

from nst_service.telemetry.catalogue import CALL_SECONDS, GROUPS, JOB_SECONDS, LABELS, RATIOS, Metric

from docs.generator.markdown import code, marked, table

_INTRODUCTION = """The server has these metrics at the path `/metrics` of `--metrics-address`. The names and labels do
not change without a note in the changelog. [Running the server](../running.md#metrics) describes how to scrape and
watch them.

Besides, there are the metrics of the process that every client of Prometheus has (`process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_start_time_seconds` and others).

A rate of a counter needs two scrapes. Counters begin at 0 when the server starts.
"""


def body() -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    for topic, metrics in GROUPS:
        rows = [
            (code(metric.name), metric.kind.value, metric.unit, _labels(metric), _meaning(metric)) for metric in metrics
        ]
        parts.append(f"## {topic}\n\n" + table(("name", "kind", "unit", "labels", "meaning"), rows))
    labels = [(code(label.name), label.values) for label in LABELS]
    parts.append("## Labels\n\n" + table(("label", "values"), labels))
    buckets = [
        (name, ", ".join(f"{bound:g}" for bound in bounds))
        for name, bounds in (("jobs", JOB_SECONDS), ("calls", CALL_SECONDS), ("ratios", RATIOS))
    ]
    parts.append("## Buckets\n\n" + table(("of", "upper bounds"), buckets))
    return "\n".join(parts)


def _labels(metric: Metric) -> str:
    return ", ".join(map(code, metric.labels))


def _meaning(metric: Metric) -> str:
    names = {JOB_SECONDS: "jobs", CALL_SECONDS: "calls", RATIOS: "ratios"}
    meaning = marked(metric.meaning)
    return f"{meaning} [Buckets](#buckets) of {names[metric.buckets]}." if metric.buckets else meaning
