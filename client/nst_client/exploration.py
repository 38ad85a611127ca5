"""The exploration of a look: one picture, stylised with several strengths and stroke sizes.

    from nst_client import StyleTransferClient
    from nst_client.exploration import explore
    from nst_client.media import sheet_writer

    writer = sheet_writer("sheet.jpg")
    with StyleTransferClient("localhost:50051") as client:
        with explore(client, "photo.jpg", "painting.jpg") as exploration:
            for cell, event in exploration:
                print(cell, event)
    writer.write(exploration)

`nst_client.metadata.read_metadata("sheet.jpg", cell=(3, 2))` returns the options of a cell of the sheet.
"""

import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Self

from nst_client.client import StyleTransferClient, Stylization
from nst_client.errors import InvalidRequestError, UnsupportedError
from nst_client.events import Accepted, Completed, Event
from nst_client.files import read_picture, read_styles
from nst_client.options import OutputOptions, Picture, PictureFormat, Styles, TransferOptions
from nst_client.result import Result

CELL_SIZE = 192
"""Longest edge of a cell in pixels, unless the options have an `image_size`."""
CELL_ITERATIONS = 60
"""Iterations of a cell, unless the options have `iterations` or `scale_iterations`."""
PARALLEL = 4
"""Number of cells that are requested at once, unless `explore` is told otherwise."""

_MOST_VALUES = 10
"""The largest number of strengths, and of stroke sizes."""


@dataclass(frozen=True)
class Cell:
    """One picture of an exploration."""

    column: int
    """The number of its strength, from 1."""
    row: int
    """The number of its stroke size, from 1."""
    strength: float
    """The strength that it is made with."""
    stroke_size: float
    """The stroke size that it is made with."""

    def __str__(self) -> str:
        return f"cell {self.column},{self.row} (strength {self.strength:g}, stroke size {self.stroke_size:g})"


@dataclass(frozen=True)
class Grid:
    """The strengths and stroke sizes of an exploration: one for each column, and one for each row.

    Raises:
        InvalidRequestError: there are no values, too many of them, one comes twice, or one is not from 0 to 1.
    """

    strengths: Sequence[float] = (0, 0.25, 0.5, 0.75, 1)
    """The strength of each column. Range: 1 to 10 different values from 0 to 1."""
    stroke_sizes: Sequence[float] = (0, 0.5, 1)
    """The stroke size of each row. Range: 1 to 10 different values from 0 to 1."""

    def __post_init__(self) -> None:
        for name, values in (("strengths", self.strengths), ("stroke_sizes", self.stroke_sizes)):
            if not 1 <= len(values) <= _MOST_VALUES:
                raise InvalidRequestError.of(name, f"has {len(values)} values, accepted are 1 to {_MOST_VALUES}")
            for value in values:
                if not 0 <= value <= 1:
                    raise InvalidRequestError.of(name, f"has {value:g}, accepted are values from 0 to 1")
            if len(set(values)) < len(values):
                raise InvalidRequestError.of(name, "has a value twice, accepted are different values")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, row by row."""
        return tuple(
            Cell(column, row, strength, stroke_size)
            for (row, stroke_size), (column, strength) in itertools.product(
                enumerate(self.stroke_sizes, start=1), enumerate(self.strengths, start=1)
            )
        )


@dataclass(frozen=True)
class _Message:
    """News of the job of a cell: an event, with the result if it is the last one, or the error that ended it."""

    cell: Cell
    news: Event | Exception
    result: Result | None = None


class Exploration(Iterator[tuple[Cell, Event]]):
    """The iterator of the events of all cells. Once a cell is completed, `results` has its picture.

    Leaving it as a context manager, or closing it, ends the jobs that still run. Another thread may close it.
    """

    def __init__(
        self,
        client: StyleTransferClient,
        content: bytes,
        styles: Styles,
        *,
        grid: Grid,
        options: TransferOptions,
        content_mask: bytes | None,
        init_picture: bytes | None,
        parallel: int,
        timeout: float | None,
    ):
        """Start the first jobs. Programs get it from `explore`."""
        self.grid = grid
        """The strengths and stroke sizes."""
        self.options = options
        """The options that all cells have in common. Those that are None are left to the server."""
        self._client = client
        self._content = content
        self._styles = styles
        self._content_mask = content_mask
        self._init_picture = init_picture
        self._timeout = timeout
        self._results: dict[Cell, Result] = {}
        self._messages: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        """The messages of the jobs, and None once nothing of interest follows."""
        self._is_over = False
        """Whether no more events follow."""
        self._lock = threading.Lock()
        """The guard of the running jobs, which another thread may end."""
        self._running: set[Stylization] = set()
        self._is_closed = False
        """Whether no more jobs start."""
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="exploration")
        for cell in grid.cells:
            self._pool.submit(self._run, cell)

    @property
    def results(self) -> Mapping[Cell, Result]:
        """The pictures of the cells that are completed."""
        return MappingProxyType(self._results)

    def close(self) -> None:
        """End the running jobs, and start no others. Cells that are not completed get no picture."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        # What the jobs send from here on tells of nothing but this.
        self._messages.put(None)
        self._pool.shutdown(wait=False, cancel_futures=True)
        for stylization in running:
            stylization.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Cell, Event]:
        """Wait for the next event of any cell.

        Raises:
            StopIteration: all cells are completed, or the exploration was closed.
            NstError: see `nst_client.errors` for each kind; a note names the cell. The other jobs are ended.
        """
        if len(self._results) == len(self.grid.cells):
            self._is_over = True
        message = None if self._is_over else self._messages.get()
        if message is None:
            self._is_over = True
            raise StopIteration
        if isinstance(message.news, Exception):
            self._is_over = True
            self.close()
            message.news.add_note(str(message.cell))
            raise message.news
        if message.result is not None:
            self._results[message.cell] = message.result
        return message.cell, message.news

    def _run(self, cell: Cell) -> None:
        """Stylise a cell in a thread of the pool, and send every event."""
        try:
            with self._stream(cell) as stylization, self._noting(stylization):
                completed: Completed | None = None
                for event in stylization:
                    if isinstance(event, Accepted):
                        _check_varied(event)
                    if isinstance(event, Completed):
                        completed = event
                    else:
                        self._messages.put(_Message(cell, event))
                if completed is not None:
                    self._messages.put(_Message(cell, completed, stylization.result))
        except Exception as error:
            self._messages.put(_Message(cell, error))

    def _stream(self, cell: Cell) -> Stylization:
        return self._client.stream(
            self._content,
            self._styles,
            content_mask=self._content_mask,
            init_picture=self._init_picture,
            options=dataclasses.replace(self.options, strength=cell.strength, stroke_size=cell.stroke_size),
            output=OutputOptions(format=PictureFormat.PNG),
            timeout=self._timeout,
        )

    @contextlib.contextmanager
    def _noting(self, stylization: Stylization) -> Iterator[None]:
        """Let `close` end a job in the body."""
        with self._lock:
            self._running.add(stylization)
            is_closed = self._is_closed
        if is_closed:
            stylization.close()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(stylization)


def explore(
    client: StyleTransferClient,
    content: Picture,
    styles: Styles,
    *,
    grid: Grid | None = None,
    options: TransferOptions | None = None,
    content_mask: Picture | None = None,
    init_picture: Picture | None = None,
    parallel: int = PARALLEL,
    timeout: float | None = None,
) -> Exploration:
    """Stylise a picture with every strength and stroke size of a grid, in small and with few iterations.

    Args:
        client: the client of the server that does the work.
        content: the picture to stylise.
        styles: the style, or several styles that are blended.
        grid: the strengths and stroke sizes. Default: 0, 0.25, 0.5, 0.75 and 1, and 0, 0.5 and 1.
        options: the options that all cells have in common. Default of `image_size`: 192; default of `iterations`: 60.
        content_mask: white where the content may change.
        init_picture: the picture to start from.
        parallel: the number of cells that are requested at once. Range: 1 and above.
        timeout: seconds for each cell, including its retries and the queue.

    Returns:
        The iterator of the events. The first jobs have started.

    Raises:
        InvalidRequestError: a picture cannot be read, or the options have a strength or a stroke size.
    """
    options = options or TransferOptions()
    for name in ("strength", "stroke_size"):
        if getattr(options, name) is not None:
            raise InvalidRequestError.of(f"options.{name}", f"is set, but it is what varies: set {name}s of the grid")
    if options.image_size is None:
        options = dataclasses.replace(options, image_size=CELL_SIZE)
    if options.iterations is None and not options.scale_iterations:
        options = dataclasses.replace(options, iterations=CELL_ITERATIONS)
    return Exploration(
        client,
        read_picture("content", content),
        read_styles(styles),
        grid=grid or Grid(),
        options=options,
        content_mask=None if content_mask is None else read_picture("content_mask", content_mask),
        init_picture=None if init_picture is None else read_picture("init_picture", init_picture),
        parallel=parallel,
        timeout=timeout,
    )


def _check_varied(accepted: Accepted) -> None:
    """Raise an error if the server does not know the strength, and would make all cells alike."""
    if accepted.options.strength is None or accepted.options.stroke_size is None:
        raise UnsupportedError("the server has neither strength nor stroke_size: it is an older version")
