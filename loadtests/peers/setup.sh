#!/usr/bin/env bash
# Installs the peers of `crisp loadtest --peers`, each in a virtual environment of its own, and
# writes the bundled dense weights as they want them.
#
#   loadtests/peers/setup.sh                  # the models and every peer
#   loadtests/peers/setup.sh models litserve  # some
#
# What cannot be installed is named with its error; the others are installed all the same.
set -uo pipefail
cd "$(dirname "$0")/../.."
into=.venv/peers
requirements=loadtests/peers/requirements
failed=()

install() {
  local name=$1 file=$requirements/$1.txt log
  log=$(mktemp)
  echo "installing $name"
  # torch by itself first: the exact pin decides which build of it comes, before another package
  # asks for torch in general.
  if .venv/bin/python -m venv "$into/$name" &&
    { ! grep -q '^torch==' "$file" || "$into/$name/bin/pip" install --quiet \
      --disable-pip-version-check "$(grep '^torch==' "$file")" >"$log" 2>&1; } &&
    "$into/$name/bin/pip" install --quiet --disable-pip-version-check -r "$file" >"$log" 2>&1; then
    rm -f "$log"
  else
    failed+=("$name: $(grep -v WARNING "$log" | tail -n 3)")
    rm -rf "${into:?}/$name" "$log"
  fi
}

mkdir -p "$into"
if [ $# -eq 0 ]; then
  set -- models
  for file in "$requirements"/*.txt; do set -- "$@" "$(basename "$file" .txt)"; done
fi
for name in "$@"; do
  if [ "$name" = models ]; then
    # OpenVINO's int8 is made by NNCF
    .venv/bin/python -c 'from importlib.util import find_spec as f; exit(not (f("openvino") and f("nncf")))' ||
      .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]' ||
      failed+=("OpenVINO and NNCF, for the int8 of the peer fastapi-openvino")
    .venv/bin/python -m export.bench.peer_models --out "$into/models" || failed+=("models")
  elif [ -f "$requirements/$name.txt" ]; then
    install "$name"
  else
    failed+=("$name: there is no $requirements/$name.txt")
  fi
done
if [ ${#failed[@]} -gt 0 ]; then
  printf 'not installed: %s\n' "${failed[@]}" >&2
  exit 1
fi
