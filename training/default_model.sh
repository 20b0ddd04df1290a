#!/usr/bin/env bash
# Trains and exports the bundled pair, service/models/{dense,sparse}: dense from MiniLM; sparse is the
# same weights with fewer tokens and links. service/models/README.md says how the bundled one differs.
#
#   training/default_model.sh DATA [OUT]
#
# DATA holds the data sets that service/models/README.md names: sst2/{train,dev}.tsv,
# imdb/{train,dev,counterfactual_train,counterfactual_dev}.tsv and polarity/all.tsv, each with the
# columns sentence and label. Runs and models go to OUT (default: runs/default). Killed, the same
# command goes on. Takes an hour on two cores with AMX, several hours without.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
data=$(realpath "$1") out=${2:-runs/default}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
crisp=.venv/bin/crisp

# Every tenth polarity review is held out (the file is sorted by label: 100 of each).
mkdir -p "$out/polarity"
awk 'NR == 1 || (NR - 2) % 10 != 0' "$data/polarity/all.tsv" >"$out/polarity/train.tsv"
awk 'NR == 1 || (NR - 2) % 10 == 0' "$data/polarity/all.tsv" >"$out/polarity/held_out.tsv"

[ -f "$out/dense/run.json" ] || "$crisp" train --out "$out/dense" \
  --base minilm --attention dense --seed 0 --epochs 3 --learning-rate 8e-5 --batch-size 64 \
  --batch-tokens 4096 --max-tokens 256 --attention-dropout 0 --average-from 0.57 \
  --data "$data/sst2/train.tsv" --data "$data/imdb/train.tsv" \
  --data "$data/imdb/counterfactual_train.tsv" --data "$out/polarity/train.tsv" \
  --dev "$data/sst2/dev.tsv" --dev "$data/imdb/dev.tsv" --dev "$data/imdb/counterfactual_dev.tsv"

export_as() {
  "$crisp" export "$out/dense" --out "$out/models/$1" --replace "${@:2}" \
    --data "$data/sst2/dev.tsv" --data "$data/imdb/dev.tsv" \
    --data "$data/imdb/counterfactual_dev.tsv" --data "$out/polarity/held_out.tsv"
}
export_as dense
export_as sparse --attention blocktopk --size 64 --k 4 --prune 1,1,0.7,0.3,0.1 --prune-floor 8
