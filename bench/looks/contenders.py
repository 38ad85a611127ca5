"""The contenders: nst with options, from any checkout, published programs with their own settings, and any command.

A contender is written as NAME=KIND:ARGUMENTS.

    today=nst:                                   this checkout, the options of its default preset
    before=nst@../before:                        another checkout, with its native kernel built
    soft=nst:--preset reference --tv-weight 10   flags of `nst-client stylize`
    neural-style=program:neural-style            a published program; --iterations N ends it earlier than it would
    other=command:./paint {content} {style} {size} {out}
"""

import contextlib
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torchvision.transforms.functional import to_pil_image

from bench import ROOT
from bench.checkouts import Checkout
from bench.environments import last_line, python_with
from bench.looks.files import Pictures, load, resized
from bench.looks.measures import style_size
from bench.looks.pairs import Pair
from bench.programs import NEURAL_STYLE, PASTICHE, PYSTICHE, Program, Stage
from bench.task import Task

_RUNNER = "bench.looks.nst_runner"
_SEED = "7"


class ContenderError(Exception):
    """A contender is written wrongly, or has failed. The message says how."""


class ContenderKind(StrEnum):
    """What makes the pictures of a contender."""

    NST = "nst"
    PROGRAM = "program"
    COMMAND = "command"


Make = Callable[[Pair, int, Path], None]
"""Makes the picture of a pair with a longest edge in pixels, and writes it as a file."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What makes pictures."""

    name: str
    """The name, which names files, too."""
    kind: ContenderKind
    arguments: str
    """Flags of nst-client, the name of a program with its flags, or a command."""
    checkout: Path = ROOT
    """The checkout of a contender that is nst."""

    @classmethod
    def parse(cls, text: str) -> "Contender":
        """Return the contender that a text such as "soft=nst:--tv-weight 10" describes.

        Raises:
            ContenderError: it describes none.
        """
        name, equals, rest = text.partition("=")
        kind, colon, arguments = rest.partition(":")
        kind, _, checkout = kind.partition("@")
        if not (equals and colon and name.replace("-", "").isalnum() and kind in set(ContenderKind)):
            raise ContenderError(
                f"the contender is {text!r}; accepted is NAME=KIND:ARGUMENTS, KIND {', '.join(ContenderKind)}"
            )
        if checkout and kind != ContenderKind.NST:
            raise ContenderError(f"{name} has a checkout; only those of kind {ContenderKind.NST} have one")
        if kind == ContenderKind.PROGRAM and arguments.split(" ")[0] not in PROGRAMS:
            raise ContenderError(f"{name} is the program {arguments!r}; accepted are {', '.join(PROGRAMS)}")
        root = Path(checkout).resolve() if checkout else ROOT
        return cls(name=name, kind=ContenderKind(kind), arguments=arguments.strip(), checkout=root)

    def ready(self, cache: Path, threads: int) -> AbstractContextManager[Make]:
        """Return a context within which the contender makes pictures.

        Args:
            cache: folder for the environments of programs.
            threads: CPU threads.
        """
        if self.kind is ContenderKind.NST:
            return _nst(self, threads)
        if self.kind is ContenderKind.COMMAND:
            return contextlib.nullcontext(self._run_command)
        return _program(self, cache, threads)

    def _run_command(self, pair: Pair, size: int, out: Path) -> None:
        with _at_size(pair, size) as (content, style):
            values = {"content": content, "style": style, "size": size, "out": out}
            _execute([part.format(**values) for part in shlex.split(self.arguments)], self.name, os.environ)


@contextmanager
def _nst(contender: Contender, threads: int) -> Iterator[Make]:
    """Run a server of a checkout, and its client for each picture. The client gets the pictures in full size."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        checkout = Checkout(contender.name, contender.checkout)
        arguments = [str(folder / "data"), str(threads)]
        running = checkout.start(_RUNNER, arguments, folder / "log")
        stack.callback(running.interrupt)

        def make(pair: Pair, size: int, out: Path) -> None:
            flags = ["--out", str(out), "--size", str(size), "--seed", _SEED, *shlex.split(contender.arguments)]
            answer = running.ask({"arguments": [str(pair.content), str(pair.style), *flags]})
            if answer["code"]:
                raise ContenderError(f"{contender.name} failed on {pair.name}: {last_line(answer['message'])}")

        yield make


class _Published(NamedTuple):
    """A published program."""

    program: Program
    make: Callable[["_Run"], None]
    iterations: int
    """The iterations that its own settings say."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run of a published program."""

    program: Program
    stage: Stage
    python: Path
    environment: Mapping[str, str]
    content: Path
    """The content, whose longest edge is `size`."""
    style: Path
    """The style, as large as nst sees it."""
    size: int
    iterations: int
    out: Path

    def execute(self, *arguments: str | Path | float) -> None:
        """Run the interpreter of the program's environment with some arguments."""
        _execute([str(part) for part in (self.python, *arguments)], self.program.name, self.environment)


def _neural_style(run: _Run) -> None:
    """Run neural-style's command line with its defaults: from noise, max pooling, a little total variation."""
    flags: dict[str, Any] = {
        "content_image": run.content,
        "style_image": run.style,
        "model_file": run.stage.weights(run.program.pixels),
        "image_size": run.size,
        "num_iterations": run.iterations,
        "seed": _SEED,
        "gpu": "c",
        "print_iter": 0,
        "save_iter": 0,
        "output_image": run.out,
    }
    arguments = [str(part) for name, value in flags.items() for part in (f"-{name}", value)]
    run.execute("-m", "neural_style.neural_style", *arguments, "-disable_check")


def _pastiche(run: _Run) -> None:
    """Run pastiche's command line with its defaults."""
    style_edge = max(load(run.style).size)
    sizes = ("--size", run.size, "--style-size", style_edge, "--num-steps", run.iterations)
    pictures = ("--content", run.content, "--styles", run.style, "--output", run.out)
    run.execute("-m", "pastiche", "--device", "cpu", "--seed", _SEED, *sizes, *pictures)


def _pystiche(run: _Run) -> None:
    """Run pystiche with the hyperparameters of its replication of Gatys, Ecker & Bethge 2016 (pystiche_papers)."""
    task = Task(
        content=str(run.content),
        style=str(run.style),
        weights=str(run.stage.weights(run.program.pixels)),
        size=run.size,
        evaluations=run.iterations,
        samples=(run.iterations,),
        folder=str(run.content.parent / "pystiche"),
        content_weight=1.0,
        style_weight=1000.0,
        tv_weight=0.0,
    )
    trace = run.stage.run(run.program, task)
    pixels = torch.load(trace.pictures[run.iterations], weights_only=True)
    to_pil_image(pixels[0].clamp(0, 1)).save(run.out)


PROGRAMS: Mapping[str, _Published] = MappingProxyType(
    {
        "neural-style": _Published(NEURAL_STYLE, _neural_style, 1000),
        "pastiche": _Published(PASTICHE, _pastiche, 1000),
        "pystiche": _Published(PYSTICHE, _pystiche, 500),
    }
)
"""Published programs with their own settings and the weights of nst."""


@contextmanager
def _program(contender: Contender, cache: Path, threads: int) -> Iterator[Make]:
    name, *flags = shlex.split(contender.arguments)
    published = PROGRAMS[name]
    match flags:
        case []:
            iterations = published.iterations
        case ["--iterations", number] if number.isdecimal():
            iterations = int(number)
        case _:
            raise ContenderError(f"{contender.name} has {' '.join(flags)}; accepted is --iterations N")
    python = python_with(published.program.name, published.program.requirements, cache)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(cache, Path(folder))

        def make(pair: Pair, size: int, out: Path) -> None:
            with _at_size(pair, size) as (content, style):
                published.make(
                    _Run(
                        program=published.program,
                        stage=stage,
                        python=python,
                        environment={**os.environ, "OMP_NUM_THREADS": str(threads)},
                        content=content,
                        style=style,
                        size=size,
                        iterations=iterations,
                        out=out,
                    )
                )

        yield make


@contextmanager
def _at_size(pair: Pair, size: int) -> Iterator[tuple[Path, Path]]:
    """Write the pictures of a pair as large as nst sees them, so that all programs work on the same pixels."""
    with tempfile.TemporaryDirectory() as name:
        paths = Path(name) / "content.png", Path(name) / "style.png"
        content, style = load(pair.content), load(pair.style)
        seen = style_size(content.size, (size, size))
        resized(content, seen).save(paths[0])
        resized(style, style_size(style.size, seen)).save(paths[1])
        yield paths


def _execute(command: list[str], name: str, environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(environment))
    if done.returncode:
        raise ContenderError(f"{name} ended with {done.returncode}: {last_line(done.stderr)}")


def make_pictures(
    contender: Contender, wanted: Sequence[tuple[Pair, int]], pictures: Pictures, *, cache: Path, threads: int
) -> None:
    """Make the pictures of a contender that are not there yet.

    Raises:
        ContenderError: the contender failed. The pictures made before stay.
        CheckoutError: the server of another checkout failed.
        InstallationError: a program cannot be installed.
    """
    paths = [(pair, size, pictures.path(pair.name, size, contender.name)) for pair, size in wanted]
    missing = [(pair, size, path) for pair, size, path in paths if not path.exists()]
    if not missing:
        return
    with contender.ready(cache, threads) as make:
        for pair, size, path in missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            # A picture that is there is whole.
            part = path.with_name(f".{path.name}")
            make(pair, size, part)
            part.rename(path)
            print(f"{path} {time.monotonic() - started:.0f} s", flush=True)
