"""A GPU against the floor that its matrix units set: the engine in each precision, and the loop that tutorials teach.

    make bench-gpu                                        # five minutes, 512 and 1024 px
    make bench-gpu BENCH='--pictures FOLDER --sizes 512'

The floor of an optimisation is the number of its operations over the rate of large matrix products, measured in the
same run with the same numbers. No program comes near it that reads and writes its features once for each layer.
"""

import argparse
import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from nst_service.engine.devices import resolve_devices, resolve_precision, set_up_process
from nst_service.engine.estimate import step_flops
from nst_service.engine.network.precision import Precision
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import load_weights
from nst_service.engine.objective.targets import build_canvas, build_criterion
from nst_service.engine.optim.transfer import optimize
from nst_service.engine.options import TransferOptions

from bench import ROOT, machine
from bench.pictures import pairs
from bench.programs import PLAIN
from bench.runners import plain_loop
from bench.runners.nst import specification
from bench.task import Task
from bench.weights import export_weights

_EDGE = 8192
"""Of the matrices whose product tells the rate."""
_PRODUCTS = 15


@dataclass(frozen=True, kw_only=True)
class Row:
    """One optimisation."""

    program: str
    size: int
    seconds: float
    """From the first step to the last."""
    floor_seconds: float
    loss: float | None
    """In float32; None where the program keeps its picture."""


def main() -> None:
    args = _parser().parse_args()
    device = resolve_devices("cuda")[0]
    rates = {precision: matrix_rate(device, precision) for precision in Precision}
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for size in args.sizes for row in _measure(args, Path(folder), size, device, rates)]
    text = report(device, rates, rows, args.iterations)
    print(text)
    if args.docs:
        (args.docs / "benchmarks-gpu.md").write_text(text)


def matrix_rate(device: torch.device, precision: Precision) -> float:
    """Return the operations per second of a large product of random matrices."""
    dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = precision is Precision.TF32
    left, right = (torch.randn(_EDGE, _EDGE, device=device, dtype=dtype) for _ in range(2))
    seconds = [_seconds(lambda: left @ right) for _ in range(_PRODUCTS)]
    torch.backends.cuda.matmul.allow_tf32 = False
    return 2 * _EDGE**3 / statistics.median(seconds)


def _measure(
    args: argparse.Namespace, folder: Path, size: int, device: torch.device, rates: dict[Precision, float]
) -> list[Row]:
    defaults = TransferOptions()
    weights, exported = load_weights("caffe"), folder / "weights.pt"
    export_weights(exported, PLAIN.pixels)
    task = Task(
        content="",
        style="",
        weights=str(exported),
        size=size,
        evaluations=args.iterations,
        folder=str(folder),
        content_weight=defaults.content_weight,
        style_weight=defaults.style_weight,
        tv_weight=0.0,
    )
    task = pairs(args.pictures, 1)[0].given(task, folder, size)
    spec = specification(task)
    judge = Vgg19(weights, device)
    operations = args.iterations * step_flops(spec.options, spec.content.size, None)
    rows = []
    for precision in Precision:
        set_up_process([device], resolve_precision(precision, [device]))
        model = Vgg19(weights, device, precision)
        for _ in range(2):
            # The second run finds all kernels loaded, as a warm server has them.
            *_, last = optimize(spec, model)
        set_up_process([device])
        canvas = build_canvas(spec, device)
        loss = build_criterion(spec, judge, canvas)(last.best.pixels.clone()).loss
        floor = operations / rates[precision]
        rows.append(Row(program=f"nst, {precision}", size=size, seconds=last.seconds, floor_seconds=floor, loss=loss))
    for precision in (Precision.FLOAT32, Precision.TF32):
        set_up_process([device], precision)
        network = plain_loop.build(task.weights).to(device)
        plain_loop.optimize(network, dataclasses.replace(task, evaluations=20), device)
        seconds = _seconds(functools.partial(plain_loop.optimize, network, task, device))
        floor = operations / rates[precision]
        rows.append(Row(program=f"plain loop, {precision}", size=size, seconds=seconds, floor_seconds=floor, loss=None))
    return rows


def _seconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def report(device: torch.device, rates: dict[Precision, float], rows: Sequence[Row], iterations: int) -> str:
    """Return the report as Markdown."""
    described = {**machine.describe(), "GPU": torch.cuda.get_device_name(device)}
    lines = [
        "# Benchmarks on a GPU",
        "",
        "Made by `make bench-gpu`; do not edit. The objective is that of the [benchmarks on a CPU](benchmarks.md).",
        "",
        *(f"- {name}: {value}" for name, value in described.items()),
        *(f"- Matrix products in {each}: {rate / 1e12:.0f} TFLOP/s" for each, rate in rates.items()),
        "",
        f"## {iterations} iterations",
        "",
        "The floor is the number of operations over the rate of matrix products. The loss, in float32, is relative to",
        "that of the first row of its size.",
        "",
        "| program | size | seconds | ms/iteration | x its floor | loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    first: dict[int, float] = {}
    for row in rows:
        base = first.setdefault(row.size, row.loss or 1.0)
        loss = "-" if row.loss is None else f"{row.loss / base:.4f}"
        lines.append(
            f"| {row.program} | {row.size} | {row.seconds:.2f} | {1000 * row.seconds / iterations:.2f} | "
            f"{row.seconds / row.floor_seconds:.2f} | {loss} |"
        )
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pictures", type=Path, help="folder with tubingen.jpg and starry_night.jpg")
    add("--sizes", type=int, nargs="+", default=[512, 1024], help="longest edges in pixels")
    add("--iterations", type=int, default=500)
    add("--docs", type=Path, default=ROOT / "docs", help="folder whose benchmarks-gpu.md is to be made")
    return parser


if __name__ == "__main__":
    main()
