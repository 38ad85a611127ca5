"""The decoders of a server: processes that decode pictures, in turns of one picture between the owners."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL.Image import Image

from nst_service.engine.errors import PictureError, PictureTooCostlyError
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.pictures.working import Role
from nst_service.engine.sizes import Size
from nst_service.engine.spec import RequestPicture, WorkingPicture
from nst_service.jobs.decoder_process import DecoderKilledError, DecoderProcess
from nst_service.jobs.decoding import DecodingAnswer, DecodingTask
from nst_service.jobs.errors import NotServingError, Unavailability
from nst_service.jobs.fair_queue import FairQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLimits:
    """The limits of decoding."""

    processes: int
    """The number of pictures that are decoded at once. One owner has at most all but one of them."""
    max_bytes: int
    """Memory of each process in bytes."""
    request_seconds: float
    """Seconds of CPU time that the pictures of a request may take together."""


class DecodingBudget:
    """The CPU time that the pictures of one request may still take, and their largest size."""

    def __init__(self, owner: str, seconds: float, max_pixels: int):
        self.owner = owner
        """Name of the owner, whose turn the decoding takes."""
        self.max_pixels = max_pixels
        """Width times height beyond which a picture is refused."""
        self.total = seconds
        self.left = seconds


@dataclass(eq=False)
class _Turn:
    """The wait of a picture for a process."""

    process: "asyncio.Future[DecoderProcess]"


class Decoders:
    """Decodes pictures in processes. A picture that nobody waits for any more is not decoded to its end.

    Everything belongs to the event loop.
    """

    def __init__(self, limits: DecoderLimits):
        self._limits = limits
        self._idle = [DecoderProcess(limits.max_bytes) for _ in range(limits.processes)]
        self._all = tuple(self._idle)
        self._threads = ThreadPoolExecutor(limits.processes, "nst-decode")
        self._waiting: dict[str, deque[_Turn]] = {}
        self._busy: Counter[str] = Counter()
        """The number of processes that each owner has."""
        self._shares: FairQueue[str] = FairQueue()
        """The owners who wait for a process or have one."""
        self._is_closed = False

    def start(self) -> None:
        """Start a process in the background, so that the first request need not wait for its start."""
        self._threads.submit(self._idle[-1].start)

    def close(self) -> None:
        """End every process. Calls that wait for a picture raise NotServingError."""
        if self._is_closed:
            return
        self._is_closed = True
        for turns in self._waiting.values():
            for turn in turns:
                if not turn.process.done():
                    turn.process.set_exception(NotServingError(Unavailability.DRAINING))
        for process in self._all:
            process.kill()
            self._threads.submit(process.close)
        self._threads.shutdown(wait=False)

    def budget(self, owner: str, *, max_pixels: int, factor: float = 1.0) -> DecodingBudget:
        """Return the budget of a request of an owner: `factor` times the limit of time, and pictures up to a size."""
        return DecodingBudget(owner, factor * self._limits.request_seconds, max_pixels)

    async def sizes(self, pictures: Iterable[RequestPicture], budget: DecodingBudget) -> dict[str, Size | PictureError]:
        """Return the size of each picture by its field, or why its header cannot be read."""
        sizes: dict[str, Size | PictureError] = {}
        for picture in pictures:
            try:
                answer = await self._answer(budget, data=picture.data)
                assert answer.size is not None
                sizes[picture.field] = answer.size
            except PictureError as error:
                sizes[picture.field] = error
        return sizes

    async def check(self, picture: WorkingPicture, budget: DecodingBudget) -> None:
        """Decode a picture and throw it away.

        Raises:
            PictureError: the picture cannot be decoded, or a mask is black everywhere.
            PictureTooCostlyError: decoding takes more memory or time than the limits allow.
        """
        await self._answer(
            budget, data=picture.picture.data, role=picture.picture.role, sizes=picture.sizes, is_check=True
        )

    async def render(self, picture: WorkingPicture, budget: DecodingBudget) -> Picture | Image:
        """Return a picture at its working size, as `working.render` does; raise as `check` does."""
        role = picture.picture.role
        answer = await self._answer(budget, data=picture.picture.data, role=role, sizes=picture.sizes)
        return answer.images[0] if role is Role.MASK else answer.picture

    async def _answer(
        self,
        budget: DecodingBudget,
        *,
        data: bytes,
        role: Role | None = None,
        sizes: tuple[Size, ...] = (),
        is_check: bool = False,
    ) -> DecodingAnswer:
        if self._is_closed:
            raise NotServingError(Unavailability.DRAINING)
        if budget.left <= 0:
            raise _too_long(budget)
        task = DecodingTask(
            data=data,
            max_pixels=budget.max_pixels,
            cpu_seconds=budget.left,
            role=role,
            sizes=sizes,
            is_check=is_check,
        )
        process = await self._turn(budget.owner)
        started = time.monotonic()
        answering = asyncio.get_running_loop().run_in_executor(self._threads, process.answer, task)
        # Not at the end of this call: a process that was killed has its turn until it is dead.
        answering.add_done_callback(lambda _: self._release(budget.owner, process, time.monotonic() - started))
        try:
            answer = await asyncio.shield(answering)
        except asyncio.CancelledError:
            process.kill()
            answering.add_done_callback(_ignore_error)
            raise
        except DecoderKilledError as error:
            raise NotServingError(Unavailability.DRAINING) from error
        budget.left -= answer.cpu_seconds
        if answer.is_too_costly and budget.left <= 0:
            raise _too_long(budget)
        if answer.refusal:
            raise PictureTooCostlyError(answer.refusal) if answer.is_too_costly else PictureError(answer.refusal)
        return answer

    async def _turn(self, owner: str) -> DecoderProcess:
        """Return a process when it is the turn of an owner."""
        turn = _Turn(asyncio.get_running_loop().create_future())
        if owner not in self._waiting:
            self._waiting[owner] = deque()
            self._shares.join(owner, 1.0)
        self._waiting[owner].append(turn)
        self._dispatch()
        try:
            return await turn.process
        except BaseException:
            if turn in self._waiting[owner]:
                self._waiting[owner].remove(turn)
                self._forget_idle(owner)
            else:
                self._release(owner, turn.process.result(), 0.0)
            raise

    def _dispatch(self) -> None:
        """Give idle processes to the owners whose turn it is."""
        while self._idle and (ready := self._ready()):
            owner = self._shares.next(ready)
            turn = self._waiting[owner].popleft()
            self._busy[owner] += 1
            turn.process.set_result(self._idle.pop())

    def _ready(self) -> list[str]:
        """Return the owners who wait for a process and may have one more."""
        most = max(1, self._limits.processes - 1)
        return [owner for owner, turns in self._waiting.items() if turns and self._busy[owner] < most]

    def _release(self, owner: str, process: DecoderProcess, seconds: float) -> None:
        self._idle.append(process)
        self._busy[owner] -= 1
        self._shares.charge(owner, seconds)
        self._forget_idle(owner)
        self._dispatch()

    def _forget_idle(self, owner: str) -> None:
        """Forget an owner who neither waits for a process nor has one."""
        if not self._waiting[owner] and not self._busy[owner]:
            del self._waiting[owner], self._busy[owner]
            self._shares.leave(owner)


def _too_long(budget: DecodingBudget) -> PictureTooCostlyError:
    return PictureTooCostlyError(
        "takes too long to decode: this server allows the pictures of a request "
        f"{budget.total:g} s of CPU time altogether"
    )


def _ignore_error(done: "asyncio.Future[DecodingAnswer]") -> None:
    """Take the error of a process that was killed on purpose, which the event loop would log otherwise."""
    if not done.cancelled():
        done.exception()
