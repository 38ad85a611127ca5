"""A process that decodes pictures: python -m nst_service.jobs.decoder_main MAX_BYTES.

It reads tasks from its standard input and writes the answers to its standard output (see `decoding`). It ends with its
input. It imports neither torch nor numpy, so that it starts quickly and takes little memory.
"""

import math
import os
import resource
import signal
import sys

from PIL.Image import Image

from nst_service.engine.errors import PictureError, PictureTooCostlyError
from nst_service.engine.pictures.headers import read_size
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.pictures.working import render
from nst_service.jobs.decoding import DecodingAnswer, DecodingTask, receive_task, send_answer


def main() -> None:
    """Answer tasks until there are no more."""
    # The server ends this process. A Ctrl-C in the terminal of the server reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _set_soft_limit(resource.RLIMIT_DATA, int(sys.argv[1]))
    # A process that has used up its time leaves no core dump.
    _set_soft_limit(resource.RLIMIT_CORE, 0)
    tasks, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    # Libraries must not write into the answers.
    os.dup2(2, 1)
    while task := receive_task(tasks):
        started = _cpu_seconds()
        # The system kills this process at the next full second: nothing else interrupts a decoder.
        _set_soft_limit(resource.RLIMIT_CPU, math.ceil(started + task.cpu_seconds))
        send_answer(answers, _answer(task, started))
        del task


def _answer(task: DecodingTask, started: float) -> DecodingAnswer:
    size, images, refusal, is_too_costly = None, [], "", False
    try:
        if task.role is None:
            size = read_size(task.data, max_pixels=task.max_pixels)
        else:
            images = _images(render(task.data, task.role, task.sizes, max_pixels=task.max_pixels))
    except PictureError as error:
        refusal, is_too_costly = str(error), isinstance(error, PictureTooCostlyError)
    except MemoryError:
        refusal, is_too_costly = "needs more memory at its working size than this server has", True
    return DecodingAnswer(
        cpu_seconds=_cpu_seconds() - started,
        size=size,
        images=() if task.is_check else images,
        refusal=refusal,
        is_too_costly=is_too_costly,
    )


def _images(rendered: Picture | Image) -> list[Image]:
    if isinstance(rendered, Picture):
        return [rendered.rgb] if rendered.alpha is None else [rendered.rgb, rendered.alpha]
    return [rendered]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _set_soft_limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    main()
