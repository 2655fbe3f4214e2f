#!/usr/bin/env bash
# Installs each side alone, in an environment of its own, and runs that side's tests: the wall between them is real.
set -euo pipefail
cd "$(dirname "$0")/.."
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
uv=.venv/bin/uv
for side in ingest train; do
  python3 -m venv "$home/$side"
  UV_FIND_LINKS="${PIP_FIND_LINKS:-}" "$uv" pip install --quiet --python "$home/$side/bin/python" -c constraints.txt -e ".[$side,test]"
  tests=(tests/pipeline "tests/$side")
  [[ $side != train ]] || tests+=(tests/grouprec)
  # PYTHONPATH is unset so that only what the extra installed can be imported.
  # What takes long has run with both sides installed; here it is asked what each side needs.
  env -u PYTHONPATH "$home/$side/bin/python" -m pytest -q -n 3 --dist loadfile -p no:cacheprovider -m "not slow and not soak" "${tests[@]}"
done
