"""Every metric of the server: its name, its labels and its meaning. The names are part of the contract.

`docs/reference/metrics.md` is generated from this module.
"""

from dataclasses import dataclass
from enum import StrEnum

JOB_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
"""Upper bounds in seconds of the buckets of what takes as long as jobs do: 0.1 s to an hour."""
CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds of the buckets of calls that answer at once, and of operations of the store."""
RATIOS = (0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Upper bounds of the buckets of ratios."""


class Kind(StrEnum):
    """The kinds of metrics, with the names that Prometheus has for them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric."""

    name: str
    """The name that a scrape has. A counter ends with `_total`."""
    kind: Kind
    unit: str
    """The unit of its values; empty for a number of things."""
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of the buckets of a histogram."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label of metrics."""

    name: str
    values: str
    """The values that it can have."""


LABELS = (
    Label("device", 'The name of a device: "cpu", "cuda:0" and so on.'),
    Label(
        "state",
        "`queued`, `running`, `succeeded`, `cancelled` or `failed`; `moved` if another server has the job, "
        "`drained` if the job goes on after the next start.",
    ),
    Label(
        "stop_reason",
        "The reason for which the optimisation ended ([events](events.md)); `none` for a job without a picture.",
    ),
    Label("reason", "The reason in the ErrorInfo of an error, or its code if it has none ([errors](errors.md))."),
    Label("cause", "`device_lost` or `device_removed`."),
    Label(
        "stage",
        "`decode`: the pictures of the request, which is a part of the time in the queue. `targets`: the statistics of "
        "content and styles. `optimize`: the steps. `encode`: the file of the picture.",
    ),
    Label(
        "kind",
        "`available`: the memory that all jobs can have together. `planned`: the estimate of the jobs on "
        "the device. `used`: the memory of tensors on a GPU, and the memory of the process on a CPU.",
    ),
    Label("operation", "The name of an operation of the store, such as `heartbeat`, `submit` or `save_checkpoint`."),
    Label("error", "The class of an error of the store, such as `StoreUnavailableError`."),
    Label("method", "The full name of a method with its service; `unknown` for methods that the server does not have."),
    Label("code", "The name of a gRPC status code, such as `OK` or `RESOURCE_EXHAUSTED`."),
    Label("file", "`tls_certificate` or `tls_client_ca`."),
    Label("version", "The version of nst."),
    Label("torch", "The version of torch."),
    Label("python", "The version of Python."),
    Label("weights", "The id of the weights of VGG-19."),
    Label("owner", "The name of an owner; `none` for callers without a name, `other` beyond 1000 owners."),
)

BUILD = Metric("nst_build_info", Kind.GAUGE, "", "1, with the versions of the server.", ("version", "torch", "python"))
WEIGHTS = Metric("nst_weights_info", Kind.GAUGE, "", "1, with the weights of the network.", ("weights",))
SERVING = Metric("nst_serving", Kind.GAUGE, "", "1 while the server accepts jobs, otherwise 0.")
DRAINING = Metric("nst_draining", Kind.GAUGE, "", "1 while the server ends its jobs before it exits, otherwise 0.")
CERTIFICATE = Metric(
    "nst_certificate_expires_timestamp_seconds",
    Kind.GAUGE,
    "seconds since 1970",
    "Time at which the first certificate of a file expires.",
    ("file",),
)

JOBS = Metric("nst_jobs", Kind.GAUGE, "", "Jobs on this server that wait or run.", ("state",))
ACCEPTED = Metric("nst_jobs_accepted_total", Kind.COUNTER, "", "Requests that have become jobs.")
RESUMED = Metric(
    "nst_jobs_resumed_total", Kind.COUNTER, "", "Jobs of an earlier process or of another server that go on here."
)
REQUEUED = Metric(
    "nst_jobs_requeued_total",
    Kind.COUNTER,
    "",
    "Times that a job has left its device and waits for another.",
    ("cause",),
)
SHRUNK = Metric(
    "nst_jobs_shrunk_total", Kind.COUNTER, "", "Times that a job went on in smaller tiles or at a smaller size."
)
ENDED = Metric(
    "nst_jobs_ended_total", Kind.COUNTER, "", "Jobs that have ended on this server.", ("state", "stop_reason")
)
FAILURES = Metric("nst_job_failures_total", Kind.COUNTER, "", "Jobs that have failed.", ("reason",))
REFUSALS = Metric(
    "nst_refusals_total", Kind.COUNTER, "", "Requests that were refused before they became jobs.", ("reason",)
)
JOB_DURATION = Metric(
    "nst_job_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time from the acceptance of a job to its end. Jobs that were moved or drained do not count.",
    ("state",),
    JOB_SECONDS,
)
RESULT_BYTES = Metric("nst_result_bytes_total", Kind.COUNTER, "bytes", "Size of the files of finished pictures.")

QUEUE_LENGTH = Metric(
    "nst_queue_length", Kind.GAUGE, "", "Jobs that wait, including the requests that are being admitted."
)
QUEUE_LIMIT = Metric("nst_queue_limit", Kind.GAUGE, "", "The largest number of jobs that may wait (`--max-queued`).")
QUEUE_OLDEST = Metric(
    "nst_queue_oldest_seconds", Kind.GAUGE, "seconds", "Time since the acceptance of the job that waits longest."
)
QUEUE_SECONDS = Metric(
    "nst_job_queue_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time from the acceptance of a job to its first step on a device, including the decoding of its pictures.",
    (),
    JOB_SECONDS,
)
FOLLOWERS = Metric("nst_followers", Kind.GAUGE, "", "Calls of this server that follow jobs.")

ITERATIONS = Metric("nst_iterations_total", Kind.COUNTER, "", "Steps of the optimiser.", ("device",))
MEGAPIXEL_ITERATIONS = Metric(
    "nst_megapixel_iterations_total",
    Kind.COUNTER,
    "megapixels",
    "Megapixels of all steps of the optimiser. Its rate is the speed of a device.",
    ("device",),
)
TAKEN_BACK = Metric(
    "nst_evaluations_taken_back_total",
    Kind.COUNTER,
    "",
    "Steps that the optimiser has taken back because the loss grew or was not finite.",
    ("device",),
)
DEVICE_SECONDS = Metric(
    "nst_device_busy_seconds_total",
    Kind.COUNTER,
    "seconds",
    "Time that a device has computed targets and steps. Its rate is the utilisation of the device.",
    ("device",),
)
STAGE_SECONDS = Metric(
    "nst_job_stage_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time that a job with a picture took for each stage, including the turns of other jobs.",
    ("stage",),
    JOB_SECONDS,
)
ESTIMATE_RATIO = Metric(
    "nst_job_estimate_ratio",
    Kind.HISTOGRAM,
    "",
    "Seconds of a device that a job took, divided by the estimate that its client got. Only jobs that did all of their "
    "iterations in one run count.",
    (),
    RATIOS,
)

DEVICE_UP = Metric(
    "nst_device_up", Kind.GAUGE, "", "1 if jobs can run on the device now, 0 if it is lost or warming up.", ("device",)
)
DEVICE_JOBS = Metric("nst_device_jobs", Kind.GAUGE, "", "Jobs that have a place on the device.", ("device",))
DEVICE_MEMORY = Metric("nst_device_memory_bytes", Kind.GAUGE, "bytes", "Memory of the device.", ("device", "kind"))
DEVICE_REMOVALS = Metric(
    "nst_device_removals_total", Kind.COUNTER, "", "Devices that have left the server because they were given back."
)
DEVICE_LOSSES = Metric("nst_device_losses_total", Kind.COUNTER, "", "Times that the device was lost.", ("device",))

CHECKPOINTS = Metric(
    "nst_checkpoint_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time that it took to store a checkpoint.",
    (),
    CALL_SECONDS,
)
CHECKPOINT_AGE = Metric(
    "nst_checkpoint_age_seconds",
    Kind.GAUGE,
    "seconds",
    "The longest time since the last checkpoint, or since the start, of a job that runs. A crash loses this work.",
)
STORE_UP = Metric("nst_store_up", Kind.GAUGE, "", "0 during an outage of the store, otherwise 1.")
STORE_SECONDS = Metric(
    "nst_store_operation_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time of an operation of the store, including its wait for a thread.",
    ("operation",),
    CALL_SECONDS,
)
STORE_ERRORS = Metric(
    "nst_store_errors_total", Kind.COUNTER, "", "Operations of the store that have failed.", ("operation", "error")
)
STORE_BYTES = Metric("nst_store_bytes", Kind.GAUGE, "bytes", "Size of all stored jobs. It is measured once a minute.")
STORE_LIMIT = Metric(
    "nst_store_limit_bytes", Kind.GAUGE, "bytes", "The largest size of the store (`--max-store-bytes`)."
)
STORE_FREE = Metric(
    "nst_store_free_bytes",
    Kind.GAUGE,
    "bytes",
    "Free space of the disk of the pictures. Absent if it is unknown, as on S3.",
)

CALLS = Metric("nst_rpcs_total", Kind.COUNTER, "", "Calls that have ended.", ("method", "code"))
CALLS_IN_FLIGHT = Metric("nst_rpcs_in_flight", Kind.GAUGE, "", "Calls that have not ended.", ("method",))
CALL_DURATION = Metric(
    "nst_rpc_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time of a call that answers at once. Calls that follow a job take as long as their job and do not count.",
    ("method",),
    CALL_SECONDS,
)

OWNER_JOBS = Metric("nst_owner_jobs_total", Kind.COUNTER, "", "Jobs of an owner that have ended.", ("owner", "state"))
OWNER_WORK = Metric(
    "nst_owner_megapixel_iterations_total",
    Kind.COUNTER,
    "megapixels",
    "Megapixels of all steps of the jobs of an owner.",
    ("owner",),
)

GROUPS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    ("Server", (BUILD, WEIGHTS, SERVING, DRAINING, CERTIFICATE)),
    ("Jobs", (JOBS, ACCEPTED, RESUMED, REQUEUED, SHRUNK, ENDED, FAILURES, REFUSALS, JOB_DURATION, RESULT_BYTES)),
    ("Queue", (QUEUE_LENGTH, QUEUE_LIMIT, QUEUE_OLDEST, QUEUE_SECONDS, FOLLOWERS)),
    ("Work", (ITERATIONS, MEGAPIXEL_ITERATIONS, TAKEN_BACK, DEVICE_SECONDS, STAGE_SECONDS, ESTIMATE_RATIO)),
    ("Devices", (DEVICE_UP, DEVICE_JOBS, DEVICE_MEMORY, DEVICE_LOSSES, DEVICE_REMOVALS)),
    (
        "Store",
        (
            CHECKPOINTS,
            CHECKPOINT_AGE,
            STORE_UP,
            STORE_SECONDS,
            STORE_ERRORS,
            STORE_BYTES,
            STORE_LIMIT,
            STORE_FREE,
        ),
    ),
    ("Calls", (CALLS, CALLS_IN_FLIGHT, CALL_DURATION)),
    ("Owners", (OWNER_JOBS, OWNER_WORK)),
)
"""The metrics by their topics. Those of owners exist only with `--metrics-owners`."""
