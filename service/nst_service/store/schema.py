"""The tables of the store in the newest version of the schema; `versions` upgrades older ones."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

METADATA = MetaData()

_ROW_NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""The type of a row number. SQLite numbers rows only in columns that are plainly INTEGER, which hold 64 bits there."""

SCHEMA_VERSION = Table(
    "schema_version",
    METADATA,
    # The oldest version that a program must know to work with these tables. 0.1.0 reads this column alone, and refuses
    # a larger number than its own.
    Column("version", Integer, nullable=False),
    # The version that these tables have. 0.1.0 makes version 1, without this column.
    Column("actual_version", Integer, nullable=False, server_default=text("1")),
)

SERVERS = Table(
    "servers",
    METADATA,
    Column("id", String, primary_key=True),
    # A count of heartbeats and no time, since the clocks of two machines differ, and clocks step.
    Column("beats", BigInteger, nullable=False),
)

# One row, which a dump of the database keeps.
STORE = Table(
    "store",
    METADATA,
    # The id in the mark of the folder of the blobs.
    Column("id", String, primary_key=True),
    # The seconds for which any server has served the store, over all of its life.
    Column("served_seconds", Double, nullable=False),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("number", _ROW_NUMBER, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False),
    Column("request_id", String),
    Column("request_digest", String, nullable=False),
    Column("disconnect_policy", String, nullable=False),
    Column("deadline", Double),
    # The serialised Accepted event.
    Column("options", LargeBinary, nullable=False),
    Column("state", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("lost_runs", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("outcome", LargeBinary),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("finished_at", Double),
    # The server that runs the job. A server is removed only after its jobs have been requeued.
    Column("server_id", ForeignKey("servers.id")),
    # The size of the row and its events, which is what the job takes besides its blobs.
    Column("row_bytes", BigInteger, nullable=False),
    # The size of the result in pixels, as `accepted_event` or a later event tells it.
    Column("width", Integer),
    Column("height", Integer),
    # The size is right while this is the epoch of the job. 0.1.0 raises the epoch alone when it leases a job, and from
    # then on its events may tell another size.
    Column("size_epoch", Integer),
    # The `served_seconds` of the store at the end of the job. NULL before its end, and if 0.1.0 has ended the job: then
    # the next cleaning sets it.
    Column("served_at_end", Double),
    # The server in whose queue a queued job waits; NULL until a server claims the job. Other servers may still lease
    # the job, and 0.1.0 does not know the column: it tells nothing of a job that runs.
    Column("claimed_by", ForeignKey("servers.id", ondelete="SET NULL")),
    UniqueConstraint("owner", "request_id"),
    Index("jobs_by_state", "state", "number"),
    Index("jobs_by_owner", "owner", "number"),
    Index("jobs_by_server", "server_id"),
    Index("jobs_by_claim", "claimed_by"),
    # The numbers of removed jobs are not used again.
    sqlite_autoincrement=True,
)

EVENTS = Table(
    "events",
    METADATA,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

BLOBS = Table(
    "blobs",
    METADATA,
    Column("sha256", String, primary_key=True),
    Column("size", BigInteger, nullable=False),
)

BLOB_USES = Table(
    "blob_uses",
    METADATA,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("kind", String, primary_key=True),
    # The database itself refuses to forget a blob that a job uses.
    Column("sha256", ForeignKey("blobs.sha256"), primary_key=True),
    Index("blob_uses_by_blob", "sha256"),
)

# The jobs that calls follow, each with the servers that have such calls. The rows of a server vanish with the server.
FOLLOWED = Table(
    "followed",
    METADATA,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("server_id", ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
    Index("followed_by_server", "server_id"),
)

# The latest event of each kind that later ones make outdated, of the jobs that are followed on other servers.
LIVE_EVENTS = Table(
    "live_events",
    METADATA,
    Column("job_number", ForeignKey("jobs.number", ondelete="CASCADE"), primary_key=True),
    Column("kind", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
