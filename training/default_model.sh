#!/usr/bin/env bash
# Trains and exports the bundled pair, service/models/{dense,sparse}: same recipe, same seed.
#
#   training/default_model.sh DATA [OUT]
#
# DATA holds the data sets that service/models/README.md names: sst2/{train,dev}.tsv,
# imdb/{train,dev,counterfactual_train,counterfactual_dev}.tsv and polarity/all.tsv, each with the
# columns sentence and label. Runs and models go to OUT (default: runs/default). Killed, the same
# command goes on. Takes an hour and a half on two cores with AMX, several hours without.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
data=$(realpath "$1") out=${2:-runs/default}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
crisp=.venv/bin/crisp

# Every tenth polarity review is held out (the file is sorted by label: 100 of each).
mkdir -p "$out/polarity"
awk 'NR == 1 || (NR - 2) % 10 != 0' "$data/polarity/all.tsv" >"$out/polarity/train.tsv"
awk 'NR == 1 || (NR - 2) % 10 == 0' "$data/polarity/all.tsv" >"$out/polarity/held_out.tsv"

train() {
  [ -f "$out/$1/run.json" ] || OMP_NUM_THREADS=1 "$crisp" train --out "$out/$1" "${@:2}" \
    --base minilm --seed 0 --epochs 3 --learning-rate 8e-5 --batch-size 64 --batch-tokens 4096 \
    --max-tokens 256 --attention-dropout 0 --average-from 0.57 \
    --data "$data/sst2/train.tsv" --data "$data/imdb/train.tsv" \
    --data "$data/imdb/counterfactual_train.tsv" --data "$out/polarity/train.tsv" \
    --dev "$data/sst2/dev.tsv" --dev "$data/imdb/dev.tsv" --dev "$data/imdb/counterfactual_dev.tsv"
}
train dense --attention dense &
train sparse --attention topk --density 0.2
wait $!

for name in dense sparse; do
  "$crisp" export "$out/$name" --out "$out/models/$name" --replace \
    --data "$data/sst2/dev.tsv" --data "$data/imdb/dev.tsv" \
    --data "$data/imdb/counterfactual_dev.tsv" --data "$out/polarity/held_out.tsv"
done
