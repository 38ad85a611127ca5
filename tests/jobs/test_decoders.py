"""Processes that decode pictures: their limits, their turns, and their ends."""

import asyncio
import dataclasses
import io
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import psutil
import pytest
from nst_service.engine.errors import PictureError, PictureTooCostlyError
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.pictures.working import Role, render
from nst_service.engine.sizes import Size
from nst_service.engine.spec import RequestPicture, WorkingPicture
from nst_service.jobs.decoders import DecoderLimits, Decoders, DecodingBudget
from nst_service.jobs.errors import NotServingError
from PIL import Image

_HANG_SECONDS = 120
"""Seconds after which a test counts as hung. No test measures time."""
_LIMITS = DecoderLimits(processes=2, max_bytes=2**32, request_seconds=60.0)
_LARGE, _HUGE = Size(5000, 5000), Size(20_000, 20_000)

MakeDecoders = Callable[..., Decoders]


@pytest.fixture
async def make_decoders() -> AsyncIterator[MakeDecoders]:
    made: list[Decoders] = []

    def make(**limits: float) -> Decoders:
        made.append(Decoders(dataclasses.replace(_LIMITS, **limits)))
        return made[-1]

    async with asyncio.timeout(_HANG_SECONDS):
        yield make
    for decoders in made:
        decoders.close()


def png(mode: str = "RGB", color: object = (90, 120, 200)) -> bytes:
    Image.new(mode, (40, 30), color).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def working(data: bytes, *sizes: Size, role: Role = Role.CONTENT) -> WorkingPicture:
    return WorkingPicture(picture=RequestPicture(field="content", role=role, data=data), sizes=sizes or (Size(20, 15),))


def slow(size: Size = _LARGE) -> WorkingPicture:
    """Return a picture that takes a second or more, and this memory several times."""
    return working(png(), size)


def budget_of(decoders: Decoders, owner: str = "ann") -> DecodingBudget:
    return decoders.budget(owner, max_pixels=10**8)


def decoding_processes() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "nst_service.jobs.decoder_main" in child.cmdline()
    ]


async def busy(decoders: Decoders, number: int = 1) -> None:
    """Wait until so many processes of the decoders have work."""
    while len(decoders._idle) > _LIMITS.processes - number:
        await asyncio.sleep(0)


def test_a_process_that_decodes_needs_no_torch():
    code = "import sys, nst_service.jobs.decoder_main as _; print({'torch', 'numpy', 'asyncio'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("data", [png(), png("RGBA", (255, 0, 0, 100))], ids=["opaque", "transparent"])
async def test_a_picture_is_the_same_as_without_a_process(make_decoders: MakeDecoders, data: bytes, role: Role):
    decoders, sizes = make_decoders(), (Size(20, 15), Size(16, 12))
    rendered = await decoders.render(working(data, *sizes, role=role), budget_of(decoders))
    expected = render(data, role, sizes, max_pixels=10**6)
    if isinstance(expected, Picture):
        assert isinstance(rendered, Picture)
        assert rendered.rgb.tobytes() == expected.rgb.tobytes()
        assert (rendered.alpha and rendered.alpha.tobytes()) == (expected.alpha and expected.alpha.tobytes())
    else:
        assert not isinstance(rendered, Picture)
        assert (rendered.mode, rendered.tobytes()) == (expected.mode, expected.tobytes())


async def test_sizes_are_read_and_bad_headers_are_told(make_decoders: MakeDecoders):
    decoders = make_decoders()
    pictures = [
        RequestPicture(field=field, role=Role.CONTENT, data=data) for field, data in (("a", png()), ("b", b"GIF89a"))
    ]
    sizes = await decoders.sizes(pictures, budget_of(decoders))
    assert sizes["a"] == Size(40, 30)
    assert str(sizes["b"]).startswith("cannot be read as a picture")


async def test_a_check_finds_what_cannot_be_decoded(make_decoders: MakeDecoders):
    decoders = make_decoders()
    await decoders.check(working(png()), budget_of(decoders))
    with pytest.raises(PictureError, match="damaged or truncated"):
        await decoders.check(working(png()[:60]), budget_of(decoders))
    with pytest.raises(PictureError, match="black everywhere"):
        await decoders.check(working(png("L", 0), role=Role.MASK), budget_of(decoders))


async def test_a_picture_that_takes_too_long_is_refused_and_the_next_one_is_not(make_decoders: MakeDecoders):
    decoders = make_decoders(request_seconds=0.3)
    with pytest.raises(PictureTooCostlyError, match=r"allows the pictures of a request 0\.3 s of CPU time altogether"):
        await decoders.check(slow(_HUGE), budget_of(decoders))
    await decoders.check(working(png()), budget_of(decoders))


async def test_the_pictures_of_a_request_have_their_time_together(make_decoders: MakeDecoders):
    decoders = make_decoders()
    budget = budget_of(decoders)
    await decoders.check(slow(Size(3000, 3000)), budget)
    assert budget.left < budget.total
    budget.left = 0.0
    with pytest.raises(PictureTooCostlyError):
        await decoders.check(working(png()), budget)


async def test_a_picture_that_needs_too_much_memory_is_refused_and_the_next_one_is_not(make_decoders: MakeDecoders):
    decoders = make_decoders(max_bytes=2**28)
    with pytest.raises(PictureTooCostlyError, match="needs more memory"):
        await decoders.check(slow(_HUGE), budget_of(decoders))
    await decoders.check(working(png()), budget_of(decoders))


async def test_a_picture_that_nobody_wants_any_more_is_not_decoded_to_its_end(make_decoders: MakeDecoders):
    decoders = make_decoders()
    checking = asyncio.create_task(decoders.check(slow(_HUGE), budget_of(decoders)))
    await busy(decoders)
    while not (processes := decoding_processes()):
        await asyncio.sleep(0.01)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
        await asyncio.sleep(0.01)
    while len(decoders._idle) < 2:
        await asyncio.sleep(0.01)
    await decoders.check(working(png()), budget_of(decoders))


async def test_a_picture_that_nobody_wants_any_more_loses_its_place_in_the_queue(make_decoders: MakeDecoders):
    decoders = make_decoders()
    first = asyncio.create_task(decoders.check(slow(), budget_of(decoders)))
    await busy(decoders)
    second = asyncio.create_task(decoders.check(slow(), budget_of(decoders)))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await first
    assert decoders._waiting == {}


async def test_an_owner_with_many_pictures_does_not_keep_another_waiting(make_decoders: MakeDecoders):
    decoders, ended = make_decoders(), list[str]()

    async def check(owner: str, picture: WorkingPicture) -> None:
        await decoders.check(picture, budget_of(decoders, owner))
        ended.append(owner)

    crowd = [asyncio.create_task(check("mallory", slow())) for _ in range(4)]
    await busy(decoders)
    # One owner never has all the processes.
    assert len(decoders._idle) == 1
    await check("ann", working(png()))
    assert ended == ["ann"]
    await asyncio.gather(*crowd)


async def test_an_owner_who_has_had_no_turn_has_the_next_one(make_decoders: MakeDecoders):
    decoders, ended = make_decoders(processes=1), list[str]()

    async def check(owner: str) -> None:
        await decoders.check(slow(Size(2500, 2500)), budget_of(decoders, owner))
        ended.append(owner)

    await asyncio.gather(*(check(owner) for owner in ("ann", "ann", "ann", "ben")))
    assert ended == ["ann", "ben", "ann", "ann"]


async def test_a_process_that_crashes_is_a_damaged_picture(make_decoders: MakeDecoders):
    decoders = make_decoders()
    checking = asyncio.create_task(decoders.check(slow(_HUGE), budget_of(decoders)))
    while not (processes := decoding_processes()):
        await asyncio.sleep(0.01)
    os.kill(processes[0].pid, signal.SIGSEGV)
    with pytest.raises(PictureError, match="damaged or truncated"):
        await checking
    await decoders.check(working(png()), budget_of(decoders))


async def test_a_process_that_the_system_kills_is_tried_once_more(make_decoders: MakeDecoders):
    decoders = make_decoders()
    checking = asyncio.create_task(decoders.check(slow(), budget_of(decoders)))
    while not (processes := decoding_processes()):
        await asyncio.sleep(0.01)
    os.kill(processes[0].pid, signal.SIGKILL)
    await checking


async def test_closing_ends_the_processes_and_the_calls(make_decoders: MakeDecoders):
    decoders = make_decoders()
    checks = [asyncio.create_task(decoders.check(slow(_HUGE), budget_of(decoders))) for _ in range(3)]
    await busy(decoders)
    while not decoding_processes():
        await asyncio.sleep(0.01)
    decoders.close()
    for check in checks:
        with pytest.raises(NotServingError):
            await check
    while decoding_processes():
        await asyncio.sleep(0.01)
    with pytest.raises(NotServingError):
        await decoders.check(slow(), budget_of(decoders))
