#!/usr/bin/env bash
# Two processes of torch on the same cores take several times the CPU time, and one setting of OpenMP takes it back.
#
# Guess: two processes with two threads each take turns on two cores, which costs some per cent for the switches. The
# remedy is the one of torch's documentation, fewer threads for each process.
# What happens: at the end of every parallel loop, the threads of GNU OpenMP, which torch brings along, spin while they
# wait for a thread that has no core. With loops as short as those of a convolutional network, most of the CPU time is
# spent so. With OMP_WAIT_POLICY=passive they sleep: the CPU time is that of one thread for each process, and a process
# may still use the cores that the other one leaves idle.
set -euo pipefail
pins=$(realpath "$(dirname "$0")")/torch-2.14.1.txt
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME ${!OMP_*} ${!GOMP_*} ${!MKL_*}
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --no-deps --disable-pip-version-check --requirement "$pins"
cat > work.py <<'PYTHON'
import os
import sys

import torch

torch.set_num_threads(int(sys.argv[1]))
generator = torch.Generator().manual_seed(0)
picture, kernel = torch.randn(1, 64, 64, 64, generator=generator), torch.randn(64, 64, 3, 3, generator=generator) / 24


def step(values):
    return torch.relu(torch.nn.functional.conv2d(values, kernel, padding=1))


with torch.inference_mode():
    step(picture)
    before = os.times()
    for _ in range(200):
        picture = step(picture)
    after = os.times()
print(after.user + after.system - before.user - before.system)
PYTHON
cat > share.py <<'PYTHON'
import os
import subprocess
import sys

cores = sorted(os.sched_getaffinity(0))[:2]
os.sched_setaffinity(0, cores)


def seconds(threads, **environment):
    """Return the CPU seconds of two processes that compute at the same time."""
    command = [sys.executable, "work.py", str(threads)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment}) for _ in range(2)]
    return sum(float(one.communicate()[0]) for one in both)


one = seconds(1)
default = seconds(2)
passive = seconds(2, OMP_WAIT_POLICY="passive")
print("torch 2.14.1, python", sys.version.split()[0], "on", len(cores), "cores; CPU seconds of two processes:")
print(f"1 thread each {one:.1f}; 2 threads each {default:.1f}; 2 threads each, OMP_WAIT_POLICY=passive {passive:.1f}")
sys.exit(len(cores) != 2 or not (default > 1.8 * passive and passive < 1.5 * one))
PYTHON
environment/bin/python share.py
