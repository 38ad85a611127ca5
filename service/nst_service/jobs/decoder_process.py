"""A process that decodes pictures for this server, and that can be killed at any time."""

import contextlib
import signal
import subprocess
import sys

from nst_service.jobs.decoding import DecodingAnswer, DecodingTask, receive_answer, send_task

_COMMAND = (sys.executable, "-m", "nst_service.jobs.decoder_main")


class DecoderKilledError(Exception):
    """The process was killed by `DecoderProcess.kill`."""


class _DeathError(Exception):
    """The process has died."""

    def __init__(self, number: int):
        super().__init__(f"signal {number}")
        self.signal = number
        """The number of the signal that it died of; 0 for none."""


class DecoderProcess:
    """Decodes one picture at a time. The process is started when it is first needed, and again after its death.

    One thread at a time may call `answer`. Any thread may call `kill`.
    """

    def __init__(self, max_bytes: int):
        """Make a decoder.

        Args:
            max_bytes: memory that the process may allocate, in bytes.
        """
        self._max_bytes = max_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self._process is None or self._process.poll() is not None:
            self._close()
            self._is_killed = False
            self._process = subprocess.Popen(
                [*_COMMAND, str(self._max_bytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )

    def answer(self, task: DecodingTask) -> DecodingAnswer:
        """Return the answer to a task. This method blocks.

        Raises:
            DecoderKilledError: the process was killed meanwhile.
            OSError: the process cannot be started.
        """
        try:
            return self._exchange(task)
        except _DeathError as death:
            if death.signal != signal.SIGKILL:
                return _answer_of_dead(task, death.signal)
        # The system kills a process when memory is short, which may have been the fault of others.
        try:
            return self._exchange(task)
        except _DeathError as death:
            return _answer_of_dead(task, death.signal)

    def _exchange(self, task: DecodingTask) -> DecodingAnswer:
        self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            send_task(process.stdin, task)
            return receive_answer(process.stdout)
        except (EOFError, OSError, ValueError) as error:
            # A malformed answer: whatever runs there is no decoder any more.
            is_rogue = isinstance(error, ValueError)
            if is_rogue:
                process.kill()
            code = process.wait()
            if self._is_killed:
                raise DecoderKilledError from error
            raise _DeathError(0 if is_rogue else max(0, -code)) from error

    def kill(self) -> None:
        """End the process at once. A call of `answer` then raises DecoderKilledError."""
        self._is_killed = True
        if process := self._process:
            process.kill()

    def close(self) -> None:
        """End the process, and wait for its end."""
        self.kill()
        if process := self._process:
            process.wait()
        self._close()

    def _close(self) -> None:
        if process := self._process:
            for pipe in (process.stdin, process.stdout):
                # What could not be sent to a process that is dead.
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()
            self._process = None


def _answer_of_dead(task: DecodingTask, number: int) -> DecodingAnswer:
    match number:
        case signal.SIGXCPU:
            refusal = "takes too long to decode"
        case signal.SIGKILL:
            refusal = "needs more memory to decode than this server has"
        case _:
            # The picture has crashed the decoder.
            return DecodingAnswer(cpu_seconds=0.0, refusal="is damaged or truncated")
    return DecodingAnswer(cpu_seconds=task.cpu_seconds, refusal=refusal, is_too_costly=True)
