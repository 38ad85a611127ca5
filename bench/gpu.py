"""Compares the engine on a GPU, in each precision, with the limit of the matrix units and with the loop of a tutorial.

    make bench-gpu                                        # five minutes, 512 and 1024 px
    make bench-gpu BENCH='--pictures FOLDER --sizes 512'

The floor of an optimisation is the time that its operations would take at the rate of large matrix products. That rate
is measured in the same run and in the same precision. A program that reads and writes the features of each layer once
does not come near the floor.
"""

import argparse
import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from nst_service.config import ServerConfig
from nst_service.engine.devices import resolve_devices, set_up_process
from nst_service.engine.estimate import step_flops
from nst_service.engine.network.precision import Precision
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.builder import build_canvas, build_criterion
from nst_service.engine.optim.transfer import optimize
from nst_service.engine.options import TransferOptions
from nst_service.runtime import load_models

from bench import ROOT, machine
from bench.pictures import pairs
from bench.programs import PLAIN
from bench.runners import plain_loop
from bench.runners.nst import specification
from bench.summary import Table
from bench.task import Task
from bench.timing import matrix_rate, seconds_of
from bench.weights import export_weights


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result of one optimisation."""

    program: str
    size: int
    """Longest edge in pixels."""
    seconds: float
    """Seconds from the first step to the last."""
    floor_seconds: float
    """Seconds that the operations would take at the rate of matrix products."""
    loss: float | None
    """The loss of the picture, computed in float32. None for a program that does not return its picture."""


def main() -> None:
    """Measure as the arguments say, print the report and write it."""
    args = _parser().parse_args()
    device = resolve_devices("cuda")[0]
    rates = {precision: matrix_rate(device, precision) for precision in Precision}
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for size in args.sizes for row in _measure(args, Path(folder), size, device, rates)]
    text = report(device, rates, rows, args.iterations)
    print(text)
    if args.docs:
        (args.docs / "benchmarks-gpu.md").write_text(text)


def _measure(
    args: argparse.Namespace, folder: Path, size: int, device: torch.device, rates: dict[Precision, float]
) -> list[Row]:
    defaults = TransferOptions()
    exported = folder / "weights.pt"
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
    judge = _model(device, Precision.FLOAT32)
    operations = args.iterations * step_flops(spec.options, spec.content.size, None)
    rows = []
    for precision in Precision:
        model = _model(device, precision)
        for _ in range(2):
            # The second run finds all kernels loaded, like a job of a warm server.
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
        seconds = seconds_of(functools.partial(plain_loop.optimize, network, task, device), device)
        floor = operations / rates[precision]
        rows.append(Row(program=f"plain loop, {precision}", size=size, seconds=seconds, floor_seconds=floor, loss=None))
    return rows


def _model(device: torch.device, precision: Precision) -> Vgg19:
    """Set up this process for a precision and return a network in it, as a server would."""
    (model,) = load_models(ServerConfig(device=str(device), precision=precision.value))
    return model


def report(device: torch.device, rates: dict[Precision, float], rows: Sequence[Row], iterations: int) -> str:
    """Return the report as Markdown."""
    described = {**machine.describe(), "GPU": torch.cuda.get_device_name(device)}
    first: dict[int, float] = {}
    for row in rows:
        first.setdefault(row.size, row.loss or 1.0)
    table = Table(
        title=f"{iterations} iterations",
        text=(
            "The floor is the number of operations over the rate of matrix products. The loss, in float32, is relative "
            "to that of the first row of its size."
        ),
        columns=["program", "size", "seconds", "ms/iteration", "x its floor", "loss"],
        rows=[
            [
                row.program,
                str(row.size),
                f"{row.seconds:.2f}",
                f"{1000 * row.seconds / iterations:.2f}",
                f"{row.seconds / row.floor_seconds:.2f}",
                "-" if row.loss is None else f"{row.loss / first[row.size]:.4f}",
            ]
            for row in rows
        ],
    )
    lines = [
        "# Benchmarks on a GPU",
        "",
        "Made by `make bench-gpu`; do not edit. The objective is that of the [benchmarks on a CPU](benchmarks.md).",
        "",
        *(f"- {name}: {value}" for name, value in described.items()),
        *(f"- Matrix products in {each}: {rate / 1e12:.0f} TFLOP/s" for each, rate in rates.items()),
        "",
        table.markdown(),
    ]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pictures", type=Path, help="folder with tubingen.jpg and starry_night.jpg")
    add("--sizes", type=int, nargs="+", default=[512, 1024], help="longest edges in pixels")
    add("--iterations", type=int, default=500, help="iterations of each optimisation")
    add("--docs", type=Path, default=ROOT / "docs", help="folder for benchmarks-gpu.md")
    return parser


if __name__ == "__main__":
    main()
