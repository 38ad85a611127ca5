"""`nst-client`: the command line of the client. Its exit codes stand in `_EPILOG`, which `--help` shows."""

import click

from nst_client.cli.connection import Connection, connection_flags
from nst_client.cli.estimate import estimate
from nst_client.cli.jobs import cancel, get, list_jobs, watch
from nst_client.cli.sequence import sequence
from nst_client.cli.server import health, info
from nst_client.cli.stylize import stylize

_EPILOG = """\b
Exit codes:
    0  done
    1  any other failure
    2  wrong usage, or a request that the server refuses as it is
    3  no server, or it takes no jobs now
    4  the job does not fit the device
    5  the timeout is too short or has passed
    6  the server broke the contract, or the picture arrived corrupt
    7  the server wants another token or certificate, or does not allow that to yours
  130  cancelled; the best picture so far is written where there is one, of a sequence every finished frame.
       Of `watch` also: left by Ctrl-C
"""


@click.group(
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@connection_flags
@click.version_option(package_name="nst-stylize", prog_name="nst-client")
@click.pass_context
def commands(context: click.Context, /, *, connection: Connection) -> None:
    """Neural style transfer by a server of nst."""
    context.obj = connection
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (stylize, sequence, estimate, watch, get, list_jobs, cancel, info, health):
    commands.add_command(_command)


def main() -> None:
    """Run the command line and exit."""
    commands(prog_name="nst-client")
