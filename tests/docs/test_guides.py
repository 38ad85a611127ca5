"""The commands and examples of README.md and the guides, run as they stand against a server of small pictures."""

import asyncio
import re
import shlex
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import nst_client.cli
import nst_service.cli
import pytest
from click.testing import CliRunner
from nst_client import Result, StyleTransferClient, TransferOptions
from nst_client.metadata import describe_sheet
from nst_client.video import VideoWriter
from nst_service.config import ServerConfig
from nst_service.engine import options
from nst_service.server import Server
from PIL import Image

ROOT = Path(__file__).parents[2]
GUIDES = ("README.md", "docs/command-line.md", "docs/python.md", "docs/running.md", "docs/security.md", "docs/jobs.md")
LONGEST = 60.0
TARGET = "localhost:50051"
"""The server of the guides."""


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for guide in GUIDES:
        found = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / guide).read_text(), re.DOTALL | re.MULTILINE)
        for number, block in enumerate(found, 1):
            yield f"{guide} {number}", block


def commands(program: str) -> list[str]:
    lines = [line for _, block in blocks("") for line in block.replace("\\\n", "").splitlines()]
    return list(dict.fromkeys(line for line in lines if re.match(rf"(\w+=\S+ )*{program}( |$)", line)))


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A server whose presets are small."""
    small = {"image_size": 48, "iterations": 3, "scales": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "PRESETS", {name: {**preset, **small} for name, preset in options.PRESETS.items()})
        port: Future[int] = Future()
        stop = asyncio.Event()
        loop = asyncio.new_event_loop()

        async def serve() -> None:
            await Server(ServerConfig(address="localhost:0", device="cpu", threads=1)).run(stop, port.set_result)

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        address = f"localhost:{port.result(LONGEST)}"
        with StyleTransferClient(address) as client:
            client.wait_until_ready(LONGEST)
        yield address
        loop.call_soon_threadsafe(stop.set)
        thread.join(LONGEST)


@pytest.fixture(scope="module")
def result(target: str, content_png: bytes, style_png: bytes) -> Result:
    """The result of a job that is kept."""
    with StyleTransferClient(target) as client:
        return client.stylize(content_png, style_png, keep_running=True, request_id="of-the-guides")


@pytest.fixture
def _folder(
    tmp_path: Path, content_png: bytes, style_png: bytes, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with the files that the guides name."""
    for name, data in (("photo", content_png), ("other", content_png), ("painting", style_png)):
        (tmp_path / f"{name}.jpg").write_bytes(data)
    for name in ("monet", "munch"):
        (tmp_path / f"{name}.jpg").write_bytes(style_png)
    result.save(tmp_path / "out.png")
    sheet = describe_sheet(result.data, (0, 0.5, 1), (0, 1), TransferOptions())
    assert sheet
    (tmp_path / "sheet.jpg").write_text(sheet)
    for module in ("nst_client.exploration", "nst_client.cli.explore"):
        monkeypatch.setattr(f"{module}.CELL_SIZE", 48)
        monkeypatch.setattr(f"{module}.CELL_ITERATIONS", 1)
    (tmp_path / "frames").mkdir()
    for number in (1, 2):
        (tmp_path / "frames" / f"{number}.png").write_bytes(content_png)
    with VideoWriter(tmp_path / "film.mp4") as film:
        Image.new("RGB", (48, 32)).save(tmp_path / "frame.png")
        for number in (1, 2):
            film.write(number, (tmp_path / "frame.png").read_bytes())
    for name in ("nst.toml", "tokens.toml", "server.pem", "server.key", "ca.pem"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("example", [pytest.param(block, id=name) for name, block in blocks("python")])
def test_every_example_in_python_runs(target: str, example: str):
    text = re.sub(r"(image_size|iterations)=\d+", lambda match: f"{match[1]}=32", example.replace(TARGET, target))
    code = compile(text, "example", "exec")
    if TARGET in example:
        exec(code, {"__name__": "__main__"})


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("line", commands("nst-client"))
def test_every_command_of_the_client_runs(target: str, result: Result, line: str):
    name, *arguments = arguments_of(line.replace(" ID", f" {result.job_id}"))
    if "--target" in arguments:
        # It names a server that is not there.
        assert nst_client.cli.commands.make_context(name, arguments)
        return
    done = CliRunner(env={"NST_TARGET": target}).invoke(nst_client.cli.commands, arguments)
    assert done.exit_code == 0, done.output


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("line", commands("nst-server"))
def test_every_command_of_the_server_is_accepted(line: str):
    name, *arguments = arguments_of(line)
    if "token" in arguments:
        assert CliRunner().invoke(nst_service.cli.main, arguments).exit_code == 0
    else:
        assert nst_service.cli.main.make_context(name, arguments)


@pytest.mark.parametrize("path", [*GUIDES, "docs/grpc.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_link_leads_to_a_file_or_a_section(path: str):
    source = ROOT / path
    for link in re.findall(r"\]\(([^)]+)\)", source.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        linked = source.parent / name if name else source
        assert linked.exists(), link
        assert not anchor or anchor in anchors(linked), link


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def arguments_of(line: str) -> list[str]:
    """Return the words of a command, without its variables, its redirection and its comment."""
    words = shlex.split(re.sub(r" >>? .*", "", line), comments=True)
    return [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
