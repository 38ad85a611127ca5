"""The client for programs with threads."""

import contextlib
import random
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc

from nst_client.errors import (
    ConnectionOptionsError,
    NstError,
    PictureNotFoundError,
    UnavailableError,
    from_rpc_error,
    rpc_errors,
)
from nst_client.events import Estimate, Event
from nst_client.fields import EstimateFields, StylizeFields, check_fields, spell_out
from nst_client.info import Health, Job, JobState, ServerInfo
from nst_client.options import Picture, Styles
from nst_client.result import Result
from nst_client.security import Tls, channel_settings
from nst_client.session import FAREWELL_SECONDS, READY_PAUSE, RECONNECT_SECONDS, RETRIES, TARGET, Session
from nst_client.translate import (
    enum_from_proto,
    estimate_from_proto,
    info_from_proto,
    job_from_proto,
    list_to_proto,
    one_id,
    request_to_proto,
    watch_to_proto,
)
from nst_client.uploads import SentPictures, Upload


class Stylization(Iterator[Event]):
    """The events of one job as they happen; `result` once they are exhausted.

    A lost connection and a restart of the server are made good, and told by the event `Reconnected` only.

    Leaving it as a context manager, or closing it, ends the job if it still runs, unless it was started with
    `keep_running` or is only watched. One that is dropped without either ends by itself a while later
    (`Limits.reattach_seconds`).
    """

    def __init__(self, stub: pb_grpc.StyleTransferServiceStub, session: Session):
        """Use `StyleTransferClient.stream` or `watch`."""
        self._stub = stub
        self._session = session
        self._events: deque[Event] = deque()
        """That have come and were not asked for yet."""
        self._ended = False
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        """Of the call, which another thread may cancel while this one replaces it."""
        self._open()

    @property
    def job_id(self) -> str | None:
        """The id of the job; None before it is accepted."""
        return self._session.job_id

    @property
    def result(self) -> Result:
        """The finished picture.

        Raises:
            ResultNotReadyError: the events are not exhausted, or they ended with an error.
        """
        return self._session.result

    def cancel(self, *, timeout: float | None = None) -> JobState | None:
        """Ask the server to end the job, from this thread or another; go on iterating for the best picture so far.

        That also ends a job that was started with `keep_running` or is only watched.

        Args:
            timeout: seconds for the server to answer.

        Returns:
            The state of the job before; None where it was not accepted yet: whatever comes of the request is cancelled,
            and there is no picture.

        Raises:
            NstError: the server could not be asked; see `nst_client.errors` for each kind.
        """
        job_id = self.job_id
        if job_id is None:
            self._leave(ending=True)
            return None
        return _cancel(self._stub, pb.CancelJobRequest(job_id=job_id), timeout)

    def close(self) -> None:
        """End the call, and with it the job if it still runs and is not to be kept. There are no more events."""
        self._ended = True
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Wait for the next event.

        Raises:
            StopIteration: the result is there.
            NstError: see `nst_client.errors` for each kind.
        """
        try:
            while not self._events and not self._ended:
                self._events.extend(self._receive())
        except BaseException:
            self.close()
            raise
        if self._ended:
            raise StopIteration
        return self._events.popleft()

    def _receive(self) -> Iterable[Event]:
        """Take one message, wait for the next attempt, or take the end."""
        try:
            response = next(self._responses)
        except StopIteration:
            self._session.end()
            self._ended = True
        except grpc.RpcError as error:
            if self._given_up.is_set():
                raise self._session.given_up() from error
            delay = self._session.fail(from_rpc_error(error), now=time.monotonic(), jitter=random.random())
            if delay is None:
                self._ended = True
            else:
                self._given_up.wait(delay)
                self._open()
        else:
            return self._session.receive(response.event, now=time.monotonic())
        return ()

    def _open(self) -> None:
        request = self._session.next_request(time.monotonic())
        method: Any = self._stub.WatchJob if isinstance(request, pb.WatchJobRequest) else self._stub.Stylize
        with self._lock:
            if self._given_up.is_set():
                raise self._session.given_up()
            call = method(request, timeout=self._session.remaining(time.monotonic()))
            self._responses: Iterator[pb.StylizeResponse | pb.WatchJobResponse] = call
            self._cancel_call: Callable[[], bool] = call.cancel

    def _give_up(self) -> None:
        with self._lock:
            self._given_up.set()
            self._cancel_call()

    def _leave(self, *, ending: bool = False) -> None:
        """End the call, and say so to a server that would wait for another one."""
        self._give_up()
        with self._lock:
            request = self._session.abandon(ending=ending)
            if request is not None:
                # Without a channel there is nobody to tell.
                with contextlib.suppress(NstError, ValueError):
                    _cancel(self._stub, request, FAREWELL_SECONDS)


class StyleTransferClient:
    """A client of one server. It may be used from several threads, and as a context manager that closes it."""

    def __init__(
        self,
        target: str = TARGET,
        *,
        tls: Tls | None = None,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        channel: grpc.Channel | None = None,
        retries: int = RETRIES,
        reconnect_seconds: float = RECONNECT_SECONDS,
    ):
        """Open a channel; it connects with the first call.

        Args:
            target: host and port of the server, or any other gRPC target.
            tls: connect with TLS; without it the channel is not encrypted.
            token: sent with every call, for servers that want one. It never travels unencrypted to another machine.
            credentials: of gRPC, instead of `tls`.
            channel: used instead of opening one to `target`; it stays open when the client is closed.
            retries: how often to send a request again that was refused before it was accepted because there was no
                server, it was not ready or its queue was full. Each retry waits as long as the server suggests (up to
                a minute), and never past the timeout of the call.
            reconnect_seconds: for how long to look for a server that was lost while it worked on a job, in growing
                intervals, and as the server suggests; the same job then goes on. Counted since the last news of the
                job, or since a connection that held for half a minute. 0: such a job ends with UnavailableError.

        Raises:
            ConnectionOptionsError: the options contradict each other, name a file that cannot be read, or would send
                the token over a network without encryption.
        """
        self._owned = None
        if channel is None:
            settings = channel_settings(target, tls=tls, token=token, credentials=credentials)
            self._owned = channel = (
                grpc.secure_channel(target, settings.credentials, settings.options)
                if settings.credentials
                else grpc.insecure_channel(target, settings.options)
            )
        elif tls is not None or token is not None or credentials is not None:
            raise ConnectionOptionsError("tls, token and credentials are for channels that the client opens itself")
        self._stub = pb_grpc.StyleTransferServiceStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._retries = retries
        self._reconnect_seconds = reconnect_seconds
        self._sent = SentPictures()
        self._streams: weakref.WeakSet[Stylization] = weakref.WeakSet()
        self._lock = threading.Lock()
        """Of the streams."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End whatever still runs, as `Stylization.close` does, and close the channel if the client opened it."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream._leave()
        if self._owned:
            self._owned.close()

    @spell_out(StylizeFields)
    def stylize(
        self,
        content: Picture,
        styles: Styles,
        *,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
        **fields: Unpack[StylizeFields],
    ) -> Result:
        """Stylise a picture and wait for the result.

        Args:
            content: the picture whose content is kept.
            styles: the style, or several that are blended.
            timeout: seconds for everything, retries and queue included. The server fits the job into it: it refuses
                one that cannot finish, and ends one early that turns out slower than expected.
            on_event: called with each event as it happens.
            **fields: further fields of the request (see `StylizeFields`).

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        check_fields(self.stylize, fields)
        with self.stream(content, styles, timeout=timeout, **fields) as events:
            for event in events:
                if on_event:
                    on_event(event)
            return events.result

    @spell_out(StylizeFields)
    def stream(
        self,
        content: Picture,
        styles: Styles,
        *,
        timeout: float | None = None,
        **fields: Unpack[StylizeFields],
    ) -> Stylization:
        """Start to stylise a picture and return the iterator of its events (see `stylize` for the arguments).

        Raises:
            InvalidRequestError: a file cannot be read, or a value has a wrong type.
        """
        check_fields(self.stream, fields)
        if fields.get("request_id") is None:
            fields["request_id"] = str(uuid.uuid4())
        build = partial(request_to_proto, content, styles, **fields)
        return self._follow(Upload(build, self._sent), keep_running=fields.get("keep_running", False), timeout=timeout)

    def watch(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        after_sequence: int = 0,
        timeout: float | None = None,
    ) -> Stylization:
        """Follow a job and return the iterator of its events, with its result at the end. Closing it leaves the job.

        Args:
            job_id: as `Accepted` named it.
            request_id: instead of it, as the request had it.
            after_sequence: of the last event that is not wanted again, other than `Completed`; 0 for all of them.
                Those that are outdated by now are left out. For a `job_id` only.
            timeout: seconds for everything; the job goes on when they have passed.

        The events end with JobNotFoundError where there is no such job, and as those of `stream` where it fails.

        Raises:
            InvalidRequestError: not exactly one id is given, or an event after which to begin without a `job_id`.
        """
        request = watch_to_proto(job_id, request_id, after_sequence)
        return self._follow(request, keep_running=True, timeout=timeout)

    def _follow(
        self, opening: Upload | pb.WatchJobRequest, *, keep_running: bool, timeout: float | None
    ) -> Stylization:
        session = Session(
            opening,
            keep_running=keep_running,
            timeout=timeout,
            retries=self._retries,
            reconnect_seconds=self._reconnect_seconds,
            now=time.monotonic(),
        )
        stream = Stylization(self._stub, session)
        with self._lock:
            self._streams.add(stream)
        return stream

    def get(self, job_id: str | None = None, *, request_id: str | None = None, timeout: float | None = None) -> Job:
        """Return where a job stands.

        Args:
            job_id: as `Accepted` named it.
            request_id: instead of it, as the request had it.
            timeout: seconds.

        Raises:
            InvalidRequestError: not exactly one id is given.
            JobNotFoundError: there is no such job.
            NstError: see `nst_client.errors` for each kind.
        """
        request = pb.GetJobRequest(**one_id(job_id, request_id))
        with rpc_errors():
            response = self._stub.GetJob(request, timeout=timeout)
        return job_from_proto(response.job)

    def list_jobs(
        self, states: Iterable[JobState] = (), *, page_size: int | None = None, timeout: float | None = None
    ) -> Iterator[Job]:
        """Yield the caller's jobs, newest first; they are fetched page by page, as they are asked for.

        Args:
            states: only jobs in one of these; none for all.
            page_size: jobs to fetch at once, 1 to 1000; None for as many as the server likes.
            timeout: seconds for each page.

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        request = list_to_proto(states, page_size)
        while True:
            with rpc_errors():
                page = self._stub.ListJobs(request, timeout=timeout)
            yield from map(job_from_proto, page.jobs)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @spell_out(EstimateFields)
    def estimate(
        self,
        content: Picture,
        styles: Styles,
        *,
        timeout: float | None = None,
        **fields: Unpack[EstimateFields],
    ) -> Estimate:
        """Return what a stylisation would do and cost, without doing it (see `stylize` for the arguments).

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        check_fields(self.estimate, fields)
        build = partial(request_to_proto, content, styles, **fields)
        upload = Upload(build, self._sent)
        while True:
            try:
                with rpc_errors():
                    request = pb.EstimateRequest(stylize=upload.message())
                    return estimate_from_proto(self._stub.Estimate(request, timeout=timeout))
            except PictureNotFoundError:
                if not upload.restore():
                    raise

    def cancel(
        self, job_id: str | None = None, *, request_id: str | None = None, timeout: float | None = None
    ) -> JobState:
        """Cancel a job. Its stream ends with the best picture so far, or with JobCancelledError if there is none.

        Args:
            job_id: as `Accepted` named it.
            request_id: instead of it, as the request had it.
            timeout: seconds.

        Returns:
            The state of the job before. A job that has already ended stays as it is.

        Raises:
            InvalidRequestError: not exactly one id is given.
            JobNotFoundError: there is no such job.
            NstError: see `nst_client.errors` for each kind.
        """
        return _cancel(self._stub, pb.CancelJobRequest(**one_id(job_id, request_id)), timeout)

    def info(self, *, timeout: float | None = None) -> ServerInfo:
        """Return the server's description of itself, every default and limit included.

        Args:
            timeout: seconds.

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        with rpc_errors():
            return info_from_proto(self._stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=timeout))

    def health(self, *, timeout: float | None = None) -> Health:
        """Return whether the server takes jobs.

        Args:
            timeout: seconds.

        Raises:
            UnavailableError: there is no server.
            NstError: see `nst_client.errors` for each kind.
        """
        with rpc_errors():
            response = self._health.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        return enum_from_proto(Health, response.status) or Health.UNKNOWN

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until there is a server and it takes jobs.

        Args:
            timeout: seconds.

        Raises:
            DeadlineExceededError: it took longer.
            NstError: see `nst_client.errors` for each kind.
        """
        deadline = time.monotonic() + timeout
        while not self._becomes_ready(max(0.0, deadline - time.monotonic())):
            time.sleep(READY_PAUSE)

    def _becomes_ready(self, timeout: float) -> bool:
        """Wait until the server takes jobs, or the connection to it breaks."""
        watch = self._health.Watch(health_pb2.HealthCheckRequest(), timeout=timeout, wait_for_ready=True)
        try:
            with rpc_errors():
                return any(enum_from_proto(Health, response.status) is Health.SERVING for response in watch)
        except UnavailableError:
            return False
        finally:
            watch.cancel()


def _cancel(stub: pb_grpc.StyleTransferServiceStub, request: pb.CancelJobRequest, timeout: float | None) -> JobState:
    with rpc_errors():
        response = stub.CancelJob(request, timeout=timeout)
    return enum_from_proto(JobState, response.state) or JobState.UNKNOWN
