"""The protocol of the devices that run jobs."""

from typing import Protocol

from nst_service.engine.memory.fit import Memory
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.job import Job
from nst_service.jobs.sink import RunSink
from nst_service.jobs.throughput import Throughput


class DeviceUnavailableError(Exception):
    """The device cannot be used now, for the reason in the message. It is tried again later."""


class Device(Protocol):
    """A device that runs jobs, one or several at once.

    `warm_up` and `serve` are called in the thread of the device, in turn. Any thread may call everything else.
    """

    @property
    def name(self) -> str:
        """The name of the device, such as "cpu" or "cuda:0"."""

    @property
    def is_restartable(self) -> bool:
        """Whether the device can be warmed up again after a failure. Otherwise only a new process can use it again."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the network, in order."""

    @property
    def memory(self) -> int:
        """Bytes that all jobs can have together; 0 before the first warm-up."""

    @property
    def capacity(self) -> Memory:
        """The memory that a job can have."""

    @property
    def throughput(self) -> Throughput:
        """The measured speed."""

    def warm_up(self) -> None:
        """Load everything that the first job needs, and measure memory and throughput.

        Raises:
            DeviceUnavailableError: the device cannot be used now.
        """

    def join(self, job: Job, spec: TransferSpec, snapshot: Snapshot | None, sink: RunSink) -> None:
        """Add a job. Its first turn is after the present step of another job.

        Args:
            job: the job.
            spec: its specification, with the sizes of its `run_state`.
            snapshot: the snapshot to go on from; None to start from the beginning.
            sink: takes the reports of the run, from Started to the outcome.
        """

    def serve(self) -> bool:
        """Run the jobs that join, until the device is closed or fails. Return whether it still works.

        The jobs of a device that fails leave it first, with `Requeued.is_lost`.
        """

    def close(self) -> None:
        """Make `warm_up` and `serve` return soon. The remaining jobs report no outcome."""
