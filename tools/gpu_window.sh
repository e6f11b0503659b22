#!/usr/bin/env bash
# Everything that a short time on a GPU should bring, in the order of its worth, on a bare machine with torch, no network
# and nothing of this project installed:
#
#   tools/gpu_window.sh MINUTES [PART...]        parts: tests bench grid paper; all if none is named
#
#   tests   what only a GPU can show (2 minutes at most)
#   bench   benchmarks gpu, row by row, what compiles last (100 seconds at most)
#   grid    workflow/lists/polymnist-gpu.yaml: all methods with the small nets, four at a time
#   paper   the paper's networks: MMVM, MVTCAE and PoE at beta 1, for as many epochs as fit, ten at least
#
# Two such times are best spent as `7 tests bench grid` and `7 paper`; where there is less, the first can be shorter.
# Grid takes all that is left, unless paper is named too and both would have four minutes. More time: `7 grid`, which goes
# on from the first run without rows.
#
# What there is by now lies in $OUT (runs/window, where it is not set), ten seconds old at most, also after a kill. Take
# it along: polymnist_gpu.csv into data/results, where the next time goes on from it, benchmarks.csv over
# benchmarks/results.csv. Checkpoints stay behind: what counts is a finished run.
#
# Classifiers are trained on the way, for a minute or so in grid and another in paper, unless they are in
# runs/classifiers, which git ignores: carry the folder along. `tar -xf classifiers.tar -C runs` puts an earlier time's
# there. Those of grid, a file each for m0, m1 and m2, a CPU makes beforehand in some ten minutes; a run of the profile
# `grid` has left the very same:
#   python -c 'from studies.polymnist.study import PolyMNIST as P; p = P.from_profile("gpu"); p.classifiers(
#       p.data("train"), p.data("test"))'
#
# Rows name the commit; where the tree comes without git, say it: MMVM_COMMIT=$(git rev-parse --short=10 HEAD).
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
REHEARSE=${REHEARSE:-}
if [ -z "$REHEARSE${MMVM_COMMIT:-}" ] && ! git rev-parse HEAD >/dev/null 2>&1; then
  echo "error: rows would name no commit: set MMVM_COMMIT to what 'git rev-parse --short=10 HEAD' says in the tree's clone" >&2
  exit 2
fi

OUT=${OUT:-$PWD/runs/window}
PY=${PYTHON:-python3}
mkdir -p "$OUT" runs || exit 1
export PYTHONUNBUFFERED=1 PYTHONHASHSEED=0 OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 TQDM_DISABLE=1
export PYTHONPATH=$PWD:$PWD/runs/entry_points${PYTHONPATH:+:$PYTHONPATH}
if [ -n "$REHEARSE" ]; then
  list=workflow/lists/rehearsal.yaml table=runs/rehearsal.csv workers=2 every=1 bench=(steps --rounds 1 --batch 8)
else
  list=workflow/lists/polymnist-gpu.yaml table=data/results/polymnist_gpu.csv workers=4 every=10 bench=(gpu --rounds 2 --keep)
fi

left() { echo $((60 * minutes - (SECONDS - started) - 15)); }  # seconds; a quarter of a minute is for what comes after
say() { echo "$(date -u +%H:%M:%S) $*" | tee -a "$OUT/window.log"; }
within() {  # SECONDS: for so long at most, or a little longer than what is left, a command whose words go into the log
  local most=$(($(left) + 10))
  if [ "$1" -lt "$most" ]; then most=$1; fi
  timeout -k 10 $((most > 1 ? most : 1)) "${@:2}" >>"$OUT/window.log" 2>&1
}
keep() {  # what is there by now, in few and small files, each written beside its place first
  local new=$OUT/.part.$BASHPID
  if [ -e "$table" ]; then cp "$table" "$new" && mv "$new" "$OUT/$(basename "$table")"; fi
  if [ -e benchmarks/results.csv ]; then cp benchmarks/results.csv "$new" && mv "$new" "$OUT/benchmarks.csv"; fi
  find runs -name history.jsonl -o -name train.log -size -200k | tar -czf "$new" -T -; mv "$new" "$OUT/histories.tar.gz"
  if ls runs/classifiers/*.safetensors >/dev/null; then
    tar -cf "$new" -C runs --exclude='*.lock' classifiers && mv "$new" "$OUT/classifiers.tar"
  fi
} 2>/dev/null
finish() {
  trap - EXIT
  kill "$keeper" && wait "$keeper"
  keep
  rm -f "$OUT"/.part.*
} 2>/dev/null

# the studies and the queue are found by the project's entry points, which no installation has written down here
"$PY" - runs/entry_points/mmvm.egg-info <<'EOF' || exit 1
import pathlib, sys, tomllib
project, folder = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"], pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
(folder / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
(folder / "entry_points.txt").write_text("\n".join(line for group, points in project["entry-points"].items() for line in (
    f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))))
EOF
while sleep "$every" && kill -0 $$; do keep; done >/dev/null 2>&1 &  # without this script it ends by itself
keeper=$!
trap finish EXIT
"$PY" -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")' \
  | tee -a "$OUT/window.log"

for part in $parts; do
  if [ "$(left)" -lt 30 ]; then say "no time is left for $part"; continue; fi
  say "$part, $(left) s left"
  status=0
  case $part in
    tests)  # a recording that fails can spoil what comes after it in its process: those last, in one of their own
      for which in "not (graph or recorded)" "graph or recorded"; do
        within 60 "$PY" -m pytest -v --tb=short -p no:cacheprovider tests/mmvm/training/test_cuda.py -k "$which" || status=$?
      done ;;
    bench)
      within 100 "$PY" -m benchmarks "${bench[@]}" --network conv || status=$? ;;
    grid)
      share=$(left)
      case " $parts " in *" paper "*) if [ "$share" -ge 500 ]; then share=$((share / 2)); fi ;; esac
      within $((share + 10)) "$PY" -m mmvm queue "$list" --workers "$workers" --threads 2 --notice 5 \
        --minutes "$(awk "BEGIN{print $share/60}")" || status=$? ;;
    paper)
      within 3600 "$PY" tools/gpu_paper.py --until $(($(date +%s) + $(left))) --table "$table" --out "$OUT" \
        ${REHEARSE:+--rehearse} || status=$? ;;
  esac
  say "$part ended with status $status"
done
finish
large=$(find "$OUT" -type f -size +16M)
if [ -n "$large" ]; then say "larger than 16 MB, may be left behind: $large"; fi
if [ "$(find "$OUT" -type f | wc -l)" -gt 8 ]; then say "more than eight files: only eight may be copied back"; fi
say "over after $((SECONDS - started)) s; in $OUT: $(ls "$OUT" | tr '\n' ' ')"
