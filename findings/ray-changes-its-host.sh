#!/usr/bin/env bash
# Importing Ray changes every log record of the process, and ray.init replaces the handler of SIGTERM.
#
# Guess: `import ray` changes nothing outside of Ray, and `ray.init(configure_logging=False, log_to_driver=False)` leaves
# logging and signals to the program.
# What happens: the import replaces the factory of log records. Every record of every logger has an attribute
# `_ray_timestamp_ns` from then on, which formatters print that print extra attributes (JSON, key=value).
# ray.init replaces the handler of SIGTERM by one that raises SystemExit. Both can be put back afterwards.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check ray==2.60.0
cat > host.py <<'PYTHON'
import logging
import os
import signal
import sys


def stop(number, frame):
    pass


os.environ["RAY_AUTH_MODE"] = "disabled"
factory = logging.getLogRecordFactory()
signal.signal(signal.SIGTERM, stop)

import ray  # noqa: E402

attributes = vars(logging.getLogger("program").makeRecord("program", logging.INFO, "f", 1, "m", (), None))
added = [name for name in attributes if "ray" in name]
print("after the import: the factory was replaced:", logging.getLogRecordFactory() is not factory, added)
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
print("after ray.init: the handler of SIGTERM is", signal.getsignal(signal.SIGTERM))
changed = signal.getsignal(signal.SIGTERM) is not stop
ray.shutdown()
print("ray", ray.__version__, "python", sys.version.split()[0])
sys.exit(not (added == ["_ray_timestamp_ns"] and changed))
PYTHON
environment/bin/python host.py
