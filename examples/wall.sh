#!/usr/bin/env bash
# Installs each side alone, in an environment of its own, imports all of it and runs its commands: the wall is real.
set -euo pipefail
cd "$(dirname "$0")/.."
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
uv=.venv/bin/uv
everything='import importlib, pkgutil, sys
for name in sys.argv[1:]:
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
        importlib.import_module(module.name)'

# SIDE TESTS...: those that go through the side's commands. All others have run with both sides installed.
alone() {
  local side=$1 python=$home/$1/bin/python
  python3 -m venv "$home/$side"
  UV_FIND_LINKS="${PIP_FIND_LINKS:-}" "$uv" pip install --quiet --python "$python" -c constraints.txt -e ".[$side,test]"
  # PYTHONPATH is unset so that only what the extra installed can be imported.
  env -u PYTHONPATH "$python" -c "$everything" pipeline "$side"
  env -u PYTHONPATH "$python" -m pytest -q -n 3 --dist loadfile -p no:cacheprovider -m "not slow and not soak" tests/pipeline "${@:2}"
}

alone ingest tests/ingest/test_{build,cli,stack_build}.py
alone train tests/train/test_{command_line,embed,export,probe,report_page,satmae_job}.py tests/grouprec/test_itr.py
