#!/usr/bin/env bash
# A student with and without a teacher, on held-out materials, beside the E0 baseline.
# bench/distil.sh MPTRJ_FILE WEIGHTS.nqx FILTER [FRACTIONS] [EPOCHS] [train settings …]
set -euo pipefail
file=$1 weights=$2 filter=$3 fractions=${4:-90/5/5} epochs=${5:-40}
shift $(($# < 5 ? $# : 5))
scratch=${SCRATCH:-$(mktemp -d)}
export MLIPDB_DB=$scratch/db
mlipdb ingest mptrj "$file"
mlipdb subset freeze part "$filter" --fractions "$fractions"
mlipdb label --teacher nequix-mp-1 --weights "$weights" --subset part --hessian-rows 4
for run in plain taught; do
    teacher=()
    [ $run = taught ] && teacher=(--teacher nequix-mp-1)
    mlipdb train --subset part --recipe nano --set epochs="$epochs" "$@" "${teacher[@]}" --name $run
    mlipdb evaluate $run --subset part
done
