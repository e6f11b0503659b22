#!/usr/bin/env bash
# Everything that a short time on a GPU should bring, in the order of its worth, on a bare machine with torch, no network
# and nothing of this project installed:
#
#   tools/gpu_window.sh MINUTES [PART...]        parts: tests bench grid paper; all if none is named
#
#   tests   what only a GPU can show (2 minutes at most)
#   bench   benchmarks gpu (1 minute)
#   grid    workflow/lists/polymnist-gpu.yaml: all methods with the small nets, several at a time, in half of what is left
#   paper   the paper's networks: MMVM, MVTCAE and PoE at beta 1, for as many epochs as fit
#
# What is finished is in $OUT (runs/window, where it is not set) at once, in at most eight files: take them along, put the
# tables into data/results, and a second window goes on where the first one ended: `tools/gpu_window.sh 7 grid paper`.
# Rows name the commit; where the tree came without git, say it: MMVM_COMMIT=$(git rev-parse --short=10 HEAD).
# REHEARSE=1 does all of it on a CPU with tiny settings, in a few minutes.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

started=$SECONDS
minutes=${1:?"say how many minutes there are: tools/gpu_window.sh 7"}
shift
parts=${*:-tests bench grid paper}
for part in $parts; do
  case $part in tests | bench | grid | paper) ;; *) echo "error: there is no part $part: tests, bench, grid, paper" >&2; exit 2 ;; esac
done
case $minutes in '' | *[!0-9]*) echo "error: MINUTES must be a whole number, got $minutes" >&2; exit 2 ;; esac

OUT=${OUT:-$PWD/runs/window}
PY=${PYTHON:-python3}
REHEARSE=${REHEARSE:-}
mkdir -p "$OUT" || exit 1
export PYTHONUNBUFFERED=1 PYTHONHASHSEED=0 OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 TQDM_DISABLE=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
list=workflow/lists/polymnist-gpu.yaml workers=8
if [ -n "$REHEARSE" ]; then list=workflow/lists/rehearsal.yaml workers=2; fi
table=data/results/polymnist_gpu.csv
if [ -n "$REHEARSE" ]; then table=runs/rehearsal.csv; fi

left() { echo $((60 * minutes - (SECONDS - started) - 15)); }  # seconds; a quarter of a minute is for what comes after
say() { echo "$(date -u +%H:%M:%S) $*" | tee -a "$OUT/window.log"; }
keep() {  # what is there by now, in few and small files
  if [ -e "$table" ]; then cp "$table" "$OUT/"; fi
  if [ -e benchmarks/results.csv ]; then cp benchmarks/results.csv "$OUT/benchmarks.csv"; fi
  find runs -name history.jsonl -o -name train.log -size -200k | tar -czf "$OUT/histories.tar.gz" -T - 2>/dev/null
}

# the studies are found by the project's entry points: setuptools writes them down without a network
"$PY" -c 'from setuptools import setup; setup()' -q egg_info 2>>"$OUT/window.log" || { say "error: setuptools is missing"; exit 1; }
"$PY" -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")' \
  | tee -a "$OUT/window.log"

for part in $parts; do
  if [ "$(left)" -lt 30 ]; then say "no time is left for $part"; continue; fi
  say "$part, $(left) s left"
  case $part in
    tests)
      timeout $(( $(left) < 120 ? $(left) : 120 )) "$PY" -m pytest -q -p no:cacheprovider tests/mmvm/training/test_cuda.py \
        >>"$OUT/window.log" 2>&1 ;;
    bench)
      if [ -n "$REHEARSE" ]; then bench=(steps --rounds 1 --batch 8); else bench=(gpu --rounds 2 --keep); fi
      timeout $(( $(left) < 75 ? $(left) : 75 )) "$PY" -m benchmarks "${bench[@]}" --network conv >>"$OUT/window.log" 2>&1 ;;
    grid)
      share=$(left); case " $parts " in *" paper "*) share=$((share / 2)) ;; esac
      "$PY" -m mmvm queue "$list" --workers "$workers" --threads 2 --minutes "$(awk "BEGIN{print $share/60}")" \
        >>"$OUT/window.log" 2>&1 ;;
    paper)
      timeout "$(( $(left) + 5 ))" "$PY" tools/gpu_paper.py --seconds "$(left)" --table "$table" --out "$OUT" \
        ${REHEARSE:+--rehearse} >>"$OUT/window.log" 2>&1 ;;
  esac
  say "$part ended with status $?"
  keep
done
keep
large=$(find "$OUT" -type f -size +16M)
if [ -n "$large" ]; then say "larger than 16 MB, may be left behind: $large"; fi
if [ "$(find "$OUT" -type f | wc -l)" -gt 8 ]; then say "more than eight files: only eight may be copied back"; fi
say "over after $((SECONDS - started)) s; in $OUT: $(ls "$OUT" | tr '\n' ' ')"
