"""The whole attack: `PYTHONPATH=tests python -m attacks`, from the repository's root; `make attack` calls it.

Every reader gets damaged files, every writer is killed and disturbed while it writes. What came out is counted and
appended to data/attacks.csv, piece by piece, which the page `trust` of the book reads. Each fault is printed with its
seed: `--only NAME --first SEED --cases 1` makes it again.
"""

import argparse
import csv
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from attacks import disturbances, harness, kills
from attacks.targets import TARGETS
from mmvm.files import git_commit

TABLE = Path(__file__).resolve().parents[2] / "data" / "attacks.csv"
COLUMNS = ("kind", "target", "first", "cases", "right", "other", "refused", "faults", "seconds", "commit", "date")
PIECE = 500  # cases of a row


def counted(kind: str, name: str, first: int, cases: int) -> tuple[dict, list]:
    """A row of the table, and the faults as (seed, outcome, words)."""
    faults: list = []
    began = time.monotonic()
    run = {"files": harness.run, "kills": kills.run, "disturbances": disturbances.run}[kind]
    found = run(name, cases, first, faults)
    kept = [found[outcome] for outcome in harness.OUTCOMES]
    cases = sum(found.values())  # none where this machine cannot do it
    return dict(zip(COLUMNS, (kind, name, first, cases, *kept, cases - sum(kept), round(time.monotonic() - began, 1),
                              git_commit(), f"{datetime.now(UTC):%Y-%m-%d}"))), faults


def append(row: dict, table: Path) -> None:
    new = not table.exists()
    with open(table, "a", newline="") as file:
        out = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            out.writeheader()
        out.writerow(row)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m attacks", description=__doc__.splitlines()[0])
    known = {"files": TARGETS, "kills": kills.WORKS, "disturbances": disturbances.KINDS}
    parser.add_argument("--cases", type=int, default=2_000, help="damaged inputs of each reader (default: 2000)")
    parser.add_argument("--kills", type=int, default=200, help="kills, of all writers together (default: 200)")
    parser.add_argument("--only", action="append", metavar="NAME", help="one reader, writer or disturbance; repeatable",
                        choices=[name for of in known.values() for name in of])
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--dry", action="store_true", help="append nothing to the table")
    options = parser.parse_args()
    torch.set_num_threads(1)  # which also lets this process fork
    bad = 0
    for kind, names in known.items():
        chosen = [name for name in names if not options.only or name in options.only]
        cases = {"files": options.cases, "kills": -(-options.kills // len(names)), "disturbances": None}[kind]
        for name in chosen:
            end = options.first + (disturbances.KINDS[name] if cases is None else cases)
            for first in range(options.first, end, PIECE):
                row, faults = counted(kind, name, first, min(PIECE, end - first))
                print(*(f"{key} {value}" for key, value in row.items() if key not in ("commit", "date")), flush=True)
                for fault in faults:
                    print(*fault, "", sep="\n", file=sys.stderr, flush=True)
                bad += len(faults)
                if row["cases"] and not options.dry:
                    append(row, TABLE)
    print(f"{bad} faults")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
