"""The functions that the scripts `nst-client` and `nst-server` call."""

from nst_launcher.descriptors import open_missing_descriptors
from nst_launcher.extras import missing_library
from nst_launcher.signals import leave_at_signal

_INTERRUPTED = 130
"""The exit code of a client that a signal has ended."""


def client() -> None:
    """Run `nst-client`."""
    open_missing_descriptors()
    leave_at_signal(_INTERRUPTED)
    from nst_client.cli import main  # noqa: PLC0415

    main()


def server() -> None:
    """Run `nst-server`."""
    open_missing_descriptors()
    leave_at_signal(0)
    try:
        from nst_service.cli import main  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SystemExit(f"Error: {missing_library(error)}") from error
    main()
