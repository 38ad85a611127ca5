#!/usr/bin/env bash
# `unasyncd --check` never reports a generated file that is out of date, and may write a file.
#
# Guess: `--check` exits with 1 if a generated file is not what the source would give, and writes nothing, as the option
# of the same name of black and ruff does. Without it, exit code 0 means that the files were written.
# What happens: a file that is out of date, or missing as in a fresh clone, "would be left unchanged", and the exit code
# is 0. Only a missing file whose content an earlier check has put into the cache counts as a change, and `--check` then
# writes it. The run that writes exits with 1 when it has written something.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check unasyncd==0.10.1
echo "unasyncd 0.10.1, $(environment/bin/python --version)"
printf 'async def answer() -> int:\n    return 1\n' > source.py
printf '[tool.unasyncd]\nfiles = { "source.py" = "generated.py" }\n' > pyproject.toml
failed=0

expect() { # a description, the exit code, what the generated file returns or "missing", and options of unasyncd
  local what=$1 code=$2 content=$3 actual=0 found=missing
  shift 3
  environment/bin/unasyncd --quiet "$@" 2>errors.txt || actual=$?
  if [ -e generated.py ]; then found=$(sed -n 's/^ *return //p' generated.py); fi
  echo "$what: unasyncd $* exits with $actual; the generated file returns: $found"
  [ "$actual $found" = "$code $content" ] || failed=1
}

expect "no generated file, no cache" 0 missing --check
expect "no generated file" 1 1
expect "up to date" 0 1
sed -i 's/return 1/return 2/' source.py
expect "source changed" 0 1 --check
expect "source changed" 0 1 --check --force
expect "source changed" 1 2
rm generated.py
expect "no generated file" 0 missing --check
expect "the same once more" 1 2 --check
exit "$failed"
