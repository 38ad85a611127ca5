"""Stylises a photograph with a painted style, through a real server: as a whole, and through a mask.

Starts `nst-server` on a free port of the loopback interface, waits until it is healthy, lets `nst-client` stylise, and
stops the server again. All pictures and the log of the server are left in the output folder.

    python examples/demo.py --size 451 --iterations 200
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paint_style import paint
from PIL import Image
from skimage.data import chelsea

SCRIPTS = Path(sys.executable).parent
START_SECONDS = 120
STOP_SECONDS = 45  # Longer than the grace period of running jobs.
LOG_TAIL = 20


class DemoError(Exception):
    """The demo cannot go on. The message says why."""


def main() -> int:
    """Run the demo and return its exit code."""
    args = parse_arguments()
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        content, style, mask = make_pictures(args.output)
        result, masked = args.output / "stylized.png", args.output / "masked.png"
        with server(args.output / "server.log") as target:
            stylize(target, content, style, result, args)
            stylize(target, content, style, masked, args, "--mask", mask)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (DemoError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"\ncontent   {content}\nstyle     {style}\nstylized  {result}\nmasked    {masked}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size", type=int, default=451, help="longest edge of the result in pixels")
    parser.add_argument("--iterations", type=int, default=200, help="optimiser steps")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for the pictures")
    return parser.parse_args()


def make_pictures(folder: Path) -> tuple[Path, Path, Path]:
    """Save the photograph, the painted style and a mask, and return the paths of all three."""
    content, style, mask = (folder / f"{name}.png" for name in ("content", "style", "mask"))
    photograph = Image.fromarray(chelsea())
    photograph.save(content)
    paint().save(style)
    # Black on the left, where the photograph stays, and white on the right, with a soft edge between.
    Image.linear_gradient("L").rotate(90).point(lambda value: max(0, min(255, 3 * value - 255))).resize(
        photograph.size
    ).save(mask)
    return content, style, mask


@contextmanager
def server(log: Path) -> Iterator[str]:
    """Run a server and yield its address when it is healthy."""
    target = f"127.0.0.1:{free_port()}"
    print(f"Starting nst-server on {target} ...", flush=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [SCRIPTS / "nst-server", "--address", target], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until_healthy(process, target)
        yield target
    except DemoError:
        show_tail(log)
        raise
    finally:
        stop(process)


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_healthy(process: subprocess.Popen[bytes], target: str) -> None:
    """Wait until the server reports that it is healthy.

    Raises:
        DemoError: the server has ended, or is not healthy in time.
    """
    deadline = time.monotonic() + START_SECONDS
    answer = ""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"nst-server ended with exit code {process.returncode} before it was healthy")
        try:
            health = client(target, "health", timeout=10, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            answer = "no answer within 10 seconds"
            continue
        if health.returncode == 0:
            return
        answer = (health.stderr or health.stdout).strip()
        time.sleep(0.5)
    raise DemoError(f"nst-server was not healthy within {START_SECONDS} seconds; nst-client said: {answer}")


def stylize(
    target: str, content: Path, style: Path, result: Path, args: argparse.Namespace, *flags: str | Path
) -> None:
    """Stylise the content. The client shows the progress in this terminal.

    Raises:
        DemoError: the client has failed.
    """
    options = ["--size", str(args.size), "--iterations", str(args.iterations)]
    done = client(target, "stylize", content, style, "-o", result, *options, *flags)
    if done.returncode != 0:
        raise DemoError(f"nst-client stylize ended with exit code {done.returncode}")


def client(target: str, *arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `nst-client` and wait until it ends."""
    return subprocess.run([SCRIPTS / "nst-client", "--target", target, *arguments], check=False, **options)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, and kill it if it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def show_tail(log: Path) -> None:
    """Print the last lines of the log of the server."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
    print(f"--- end of {log}", *lines, "---", sep="\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
