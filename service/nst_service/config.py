"""The configuration of the server: every setting with its default and its explanation, in one place."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from nst_service.engine.input_scale import InputScale
from nst_service.engine.precision import Precision


def _setting(default: Any, explanation: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": explanation, **metadata})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of the server. Flags, environment and file are made from these fields (see `cli`)."""

    address: str = _setting("127.0.0.1:50051", "Address to listen on, HOST:PORT; port 0 takes a free one.")
    insecure: bool = _setting(
        False,
        "Listen without TLS even where other machines can connect: for a port that something else protects, "
        "such as a proxy or a container's network.",
    )
    tls_certificate: str = _setting(
        "", "Certificate of the server (PEM, with its chain), read again when it changes. Empty: no TLS."
    )
    tls_key: str = _setting("", "Its private key (PEM, not encrypted).")
    tls_client_ca: str = _setting(
        "", "Authorities (PEM) of which clients must have a certificate. Empty: clients need none."
    )
    tokens: str = _setting(
        "",
        "File of the tokens of which clients must send one, made by `nst-server token` and read again when it "
        "changes. Empty: clients need none.",
    )
    device: str = _setting("auto", "Devices to compute on: auto, cpu, cuda, cuda:N, or several with commas between.")
    precision: str = _setting(
        "auto",
        "Numbers that go into the convolutions of a GPU: auto is tf32 where it has that, or float32; bfloat16 is the "
        "fastest, and all sums, losses and the picture stay float32 with it. A CPU always takes float32.",
        choices=["auto", *(precision.value for precision in Precision)],
    )
    weights: str = _setting(
        "caffe", "Weights of VGG-19: caffe, torchvision, or the path of a .pth or .safetensors file."
    )
    weights_input: str = _setting(
        InputScale.TORCHVISION.value,
        "What the network in a weights file was trained on.",
        choices=[scale.value for scale in InputScale],
    )
    max_queued: int = _setting(16, "Jobs that may wait for a device; more are refused.", min=0)
    max_running: int = _setting(
        4,
        "Jobs that may share a device. One joins others only where it is expected to take less than half of what is "
        "left of each; 1 runs every job alone.",
        min=1,
    )
    max_request_bytes: int = _setting(64 * 2**20, "Size of a request.", min=1024, max=2**30)
    max_connections: int = _setting(1024, "Connections that may be open; more are closed.", min=1, max=2**20)
    max_pending_bytes: int = _setting(
        512 * 2**20,
        "Bytes of requests that may wait to be read, all together: what they hold until then is the server's memory.",
        min=1,
    )
    max_streams: int = _setting(256, "Calls at once on a connection; more wait in the client.", min=1, max=2**20)
    # Pillow refuses pictures of more than 2 ** 28 / 1.5 pixels by itself.
    max_input_pixels: int = _setting(64_000_000, "Width times height of an input picture.", min=1, max=178_000_000)
    max_image_size: int = _setting(4096, "Longest edge of a result in pixels.", min=1, max=65_500)
    max_iterations: int = _setting(5000, "Iterations of a job.", min=1, max=100_000)
    max_job_bytes: int = _setting(
        0,
        "Memory of a job on its device; larger pictures are worked on in tiles. 0 takes what the device has.",
        min=0,
    )
    style_cache_bytes: int = _setting(
        64 * 2**20,
        "Memory on each device for the statistics of styles, so that one that comes again need not be looked at again; "
        "0 keeps none. Results do not depend on it.",
        min=0,
    )
    data_dir: str = _setting(
        "",
        "Directory of the jobs: what was asked for, how far it is, the results. Jobs in it outlive the server; no "
        "other server may use it. Empty: the user's data directory.",
    )
    database: str = _setting(
        "", "postgresql://... for servers that share their jobs. Empty: SQLite in the data directory."
    )
    blobs: str = _setting(
        "",
        "Folder of pictures and checkpoints, as fsspec names it (s3://...); servers that share a database share it "
        "too. Empty: in the data directory.",
    )
    checkpoint_seconds: float = _setting(
        5.0,
        "Seconds between two checkpoints of a running job, at least; longer where they would cost more than 1 %.",
        min=0,
    )
    # More than the minute for which our clients look for a server that is lost.
    reattach_seconds: float = _setting(
        90.0, "Seconds for which a job with a request_id goes on without a follower before it is cancelled.", min=0
    )
    keep_seconds: float = _setting(7 * 86400.0, "Seconds for which a job and its result are kept after its end.", min=0)
    max_store_bytes: int = _setting(
        10 * 2**30, "Bytes of everything that is kept; the oldest ended jobs go when it is reached.", min=2**20
    )
    min_free_bytes: int = _setting(
        256 * 2**20, "Bytes of the disk, left free for the jobs that run; no new ones are taken below it.", min=0
    )
    max_styles: int = _setting(8, "Style pictures in a request.", min=1, max=64)
    threads: int = _setting(0, "CPU threads for computing; 0 takes one for each core.", min=0, max=1024)
    grace: float = _setting(
        30.0,
        "Seconds that running jobs get to finish after SIGTERM, before they are kept to go on later or, without a "
        "request_id, end with their best picture.",
        min=0,
    )
    log_level: str = _setting("info", "How much to log.", choices=["debug", "info", "warning", "error"])


def settings() -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of `ServerConfig`."""
    return dataclasses.fields(ServerConfig)
