"""The settings of the server. Each is defined once, with its default, its range and its explanation.

The flags, the environment variables, the keys of the TOML file (see `cli`) and `docs/reference/settings.md` are
generated from these fields.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nst_service.engine.network.input_scale import InputScale
from nst_service.engine.network.precision import Precision
from nst_service.reloaded import SettingError

_LEVELS = ("debug", "info", "warning", "error")


def _setting(default: Any, explanation: str, **metadata: Any) -> Any:
    """Return a field.

    Its `metadata` may have its `choices`, its smallest and largest value as `min` and `max`, and `is_path` if a leading
    `~` stands for the home directory of the user.
    """
    return field(default=default, metadata={"help": explanation, **metadata})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The settings of one server."""

    address: str = _setting(
        "127.0.0.1:50051", "Address to listen on, as HOST:PORT or unix:PATH. Port 0 picks a free port.", is_path=True
    )
    insecure: bool = _setting(
        False,
        "Allow an address that other machines can reach without TLS. Use it only if something else protects the port, "
        "such as a proxy or the network of a container.",
    )
    tls_certificate: str = _setting(
        "",
        "File with the certificate of the server and its chain (PEM). The server rereads it when it changes. Empty: no "
        "TLS.",
        is_path=True,
    )
    tls_key: str = _setting("", "File with the private key of tls_certificate (PEM, unencrypted).", is_path=True)
    tls_client_ca: str = _setting(
        "",
        "File with the authorities that sign client certificates (PEM). Clients must then present a certificate. "
        "Empty: clients need no certificate.",
        is_path=True,
    )
    tokens: str = _setting(
        "",
        "File with the accepted bearer tokens (TOML). `nst-server token` makes its entries. Clients must then send a "
        "token. The server rereads the file when it changes. Empty: clients need no token.",
        is_path=True,
    )
    device: str = _setting("auto", "Devices to compute on: auto, cpu, cuda, cuda:N, or a comma-separated list.")
    ray: str = _setting(
        "",
        "Address of a Ray cluster whose devices compute, such as 10.0.0.1:6379; auto for the cluster that this machine "
        "belongs to, local for one that starts and ends with the server. The server itself then computes nothing, and "
        "device is not used. Empty: the devices of this machine.",
    )
    ray_devices: str = _setting(
        "gpu:1",
        "Devices in the Ray cluster: gpu:N or cpu:N for N devices, gpu:N-M or cpu:N-M for up to M while jobs wait for "
        "long. A cpu device reserves as many CPUs as threads says, or one.",
    )
    ray_timeout: float = _setting(
        10.0,
        "Seconds in which a device of the Ray cluster must answer. A device that does not is replaced, and its jobs "
        "resume on another one.",
        min=1,
    )
    precision: str = _setting(
        "auto",
        "Number format of the convolutions on a GPU. auto selects tf32 if the GPU supports it, otherwise float32. "
        "bfloat16 is the fastest. Sums, losses and the picture are float32 in every format. A CPU always uses float32.",
        choices=["auto", *(precision.value for precision in Precision)],
    )
    weights: str = _setting(
        "caffe", "Weights of VGG-19: caffe, torchvision, or the path of a .pth or .safetensors file.", is_path=True
    )
    weights_input: str = _setting(
        InputScale.TORCHVISION.value,
        "Input scale that the network in a weights file expects.",
        choices=[scale.value for scale in InputScale],
    )
    max_queued: int = _setting(
        16, "Largest number of jobs that may wait for a device. The server refuses further jobs.", min=0
    )
    max_running: int = _setting(
        4,
        "Largest number of jobs that may share a device. A job joins others only if it is expected to take less than "
        "half of the remaining time of each. 1 runs every job alone.",
        min=1,
    )
    max_request_bytes: int = _setting(64 * 2**20, "Largest size of a request in bytes.", min=1024, max=2**30)
    max_connections: int = _setting(
        1024, "Largest number of open connections. The server closes further connections.", min=1, max=2**20
    )
    max_calls: int = _setting(
        2048,
        "Largest number of open calls on all connections together. One caller can have seven eighths of them. The "
        "server refuses further calls and tells the client when to retry.",
        min=1,
        max=2**20,
    )
    message_seconds: float = _setting(
        120.0,
        "Seconds within which a client must send its request whole, and take a response that is no stream. The server "
        "ends slower calls.",
        min=0.1,
    )
    memory_bytes: int = _setting(
        0,
        "Memory in bytes of the server and of its processes that decode pictures. It is divided among what the server "
        "receives, decodes, computes and sends. 0 uses four fifths of the memory of the machine or of the container.",
        min=0,
    )
    max_pending_bytes: int = _setting(
        0,
        "Largest total size in bytes of the requests with pictures that are received or checked at once. Further "
        "requests wait in the client for up to message_seconds, in turns between the callers. The server then refuses "
        "them and tells the client when to retry. 0 uses an eighth of the memory, at most 512 MiB.",
        min=0,
    )
    max_streams: int = _setting(
        256, "Largest number of concurrent calls on a connection. Further calls wait in the client.", min=1, max=2**20
    )
    # Pillow refuses pictures of more than 2 ** 28 / 1.5 pixels by itself.
    max_input_pixels: int = _setting(
        64_000_000, "Largest number of pixels (width times height) of an input picture.", min=1, max=178_000_000
    )
    max_request_pixels: int = _setting(
        512_000_000,
        "Largest number of pixels of all pictures in a request together, as they are sent and at their working sizes.",
        min=1,
    )
    decode_seconds: float = _setting(
        20.0,
        "CPU time in seconds that the pictures of a request may take to be decoded. The server refuses requests that "
        "take more.",
        min=0.1,
    )
    max_image_size: int = _setting(4096, "Longest allowed edge of a result in pixels.", min=1, max=65_500)
    max_iterations: int = _setting(5000, "Largest number of iterations of a job.", min=1, max=100_000)
    max_job_bytes: int = _setting(
        0,
        "Largest memory of a job on its device in bytes. Larger pictures are worked on in tiles. 0 allows the whole "
        "memory of the device.",
        min=0,
    )
    style_cache_bytes: int = _setting(
        64 * 2**20,
        "Memory in bytes on each device that caches the statistics of styles. A cached style need not be analysed "
        "again. Results do not depend on the cache. 0 disables it.",
        min=0,
    )
    data_dir: str = _setting(
        "",
        "Directory that stores the jobs: requests, checkpoints and results. They survive a restart. Only one server "
        "may use a directory. Empty: the data directory of the user.",
        is_path=True,
    )
    database: str = _setting(
        "",
        "Database URL (postgresql://...) for servers that share their jobs. Empty: SQLite in the data directory.",
    )
    blobs: str = _setting(
        "",
        "Folder for pictures and checkpoints, as an fsspec URL (s3://...). Servers that share a database must share "
        "this folder too. Empty: a folder in the data directory.",
        is_path=True,
    )
    checkpoint_seconds: float = _setting(
        5.0,
        "Shortest time in seconds between two checkpoints of a running job. The time is longer if checkpoints would "
        "cost more than 1 % of the job.",
        min=0,
    )
    # Longer than the minute for which the clients of this project look for a lost server.
    reattach_seconds: float = _setting(
        90.0,
        "Seconds for which a job with a request_id runs on without a follower. The job is then cancelled.",
        min=0,
    )
    keep_seconds: float = _setting(
        7 * 86400.0,
        "Seconds for which a job and its result are kept after the end of the job. Only time in which a server runs "
        "counts.",
        min=0,
    )
    max_store_bytes: int = _setting(
        10 * 2**30,
        "Largest total size of the store in bytes. When it is reached, the jobs that ended first are removed.",
        min=2**20,
    )
    min_free_bytes: int = _setting(
        256 * 2**20,
        "Disk space in bytes that is reserved for running jobs. The server refuses new jobs when less is free.",
        min=0,
    )
    max_styles: int = _setting(8, "Largest number of style pictures in a request.", min=1, max=64)
    threads: int = _setting(
        0,
        "Number of CPU threads for computing. Set it if several servers share a machine. 0 uses one thread for each "
        "core.",
        min=0,
        max=1024,
    )
    grace: float = _setting(
        30.0,
        "Seconds that running jobs get to finish after SIGTERM. Unfinished jobs with a request_id are then stored and "
        "resume at the next start. Other unfinished jobs end with their best picture.",
        min=0,
    )
    metrics_address: str = _setting(
        "",
        "Address on which Prometheus can scrape metrics, as HOST:PORT. Port 0 picks a free port. It has neither "
        "encryption nor tokens. Empty: no metrics.",
    )
    metrics_owners: bool = _setting(
        False,
        "Count jobs and work of each owner in the metrics. Whoever can scrape them then learns the names of owners.",
    )
    log_format: str = _setting(
        "text",
        "Format of the log on stderr. text has one line for each message, with its fields as name=value. json has one "
        "JSON object on a line for each message.",
        choices=["text", "json"],
    )
    log_level: str = _setting("info", "Lowest level of the messages of the server to log.", choices=_LEVELS)
    library_log_level: str = _setting(
        "warning",
        "Lowest level of the messages of the libraries that the server uses, such as those of the database.",
        choices=_LEVELS,
    )

    def __post_init__(self) -> None:
        """Expand `~` in paths.

        Raises:
            SettingError: there is no such user.
        """
        for setting in dataclasses.fields(self):
            if setting.metadata.get("is_path"):
                value = getattr(self, setting.name)
                try:
                    object.__setattr__(self, setting.name, _expanded(value))
                except RuntimeError as error:
                    raise SettingError(f"{setting.name}: the home directory of {value!r} is not known") from error


def _expanded(value: str) -> str:
    """Return a path, or the address of a Unix socket, without `~`, which only shells expand."""
    scheme = "unix:" if value.startswith("unix:") else ""
    path = value.removeprefix(scheme)
    return scheme + str(Path(path).expanduser()) if path.startswith("~") else value


def settings() -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of `ServerConfig`."""
    return dataclasses.fields(ServerConfig)
