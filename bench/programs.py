"""The programs that are compared: how each is run, and when each of its evaluations ends."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from nst_service.engine.layers import CONVS
from nst_service.engine.weights import TORCHVISION_INDEX, load_weights


@dataclass(frozen=True)
class Task:
    """What every program has to do."""

    content: Path
    style: Path
    weights: Path
    """The weights that nst uses by default, in the form that other programs read."""
    size: int
    iterations: int


@dataclass(frozen=True)
class Program:
    """One of the programs."""

    name: str
    command: Callable[[Task], list[str]]
    marker: str
    """A line of its output that begins like this says that an evaluation has ended."""


def _plain(task: Task) -> list[str]:
    return _module("bench.plain_loop", task.content, task.style, task.weights, *_amount(task))


def _engine(task: Task) -> list[str]:
    return _module("bench.engine_loop", task.content, task.style, *_amount(task))


def _neural_style(task: Task) -> list[str]:
    options = {
        "content_image": task.content,
        "style_image": task.style,
        "model_file": task.weights,
        "image_size": task.size,
        "num_iterations": task.iterations,
        "print_iter": 1,
        "save_iter": 0,
        "init": "image",
        "gpu": "c",
        "output_image": task.weights.with_name("neural-style.png"),
    }
    call = "from neural_style.neural_style import main; main()"
    arguments = [str(part) for name, value in options.items() for part in (f"-{name}", value)]
    return [sys.executable, "-u", "-c", call, "-disable_check", *arguments]


ENGINE = Program("nst", _engine, "evaluation")
PLAIN = Program("plain channels_last loop", _plain, "evaluation")
NEURAL_STYLE = Program("neural-style 0.5.7", _neural_style, "Iteration")


def export_weights(folder: Path) -> Path:
    """Write the default weights with torchvision's key names, for BGR pixels in 0..255."""
    state = {}
    for conv, (kernel, bias) in load_weights("caffe").convs.items():
        index = TORCHVISION_INDEX[conv]
        state[f"features.{index}.weight"] = kernel.flip(1).contiguous() if conv == CONVS[0] else kernel
        state[f"features.{index}.bias"] = bias
    path = folder / "vgg19.pth"
    torch.save(state, path)
    return path


def evaluation_seconds(program: Program, task: Task, *, skip: int) -> list[float]:
    """Run a program in a process of its own and return the seconds of each evaluation but the first `skip`.

    Raises:
        RuntimeError: it failed, with the end of what it said.
    """
    ends = list(_evaluation_ends(program, task))
    return [after - before for before, after in pairwise(ends[skip - 1 :])]


def _evaluation_ends(program: Program, task: Task) -> Iterator[float]:
    command = program.command(task)
    output: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            output.append(line)
            if line.startswith(program.marker):
                yield time.perf_counter()
    if process.returncode:
        raise RuntimeError(f"{program.name} ended with {process.returncode}:\n{''.join(output[-20:])}")


def _amount(task: Task) -> tuple[str, ...]:
    return "--size", str(task.size), "--iterations", str(task.iterations)


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-u", "-m", name, *map(str, arguments)]
