"""Writes into a table's column `note` what sets the runs of a list apart from their profile.

    python tools/note_settings.py workflow/lists/polymnist-search.yaml

A row knows its run by a hash. For a search this says in words which settings that hash stands for, before what the note
says already; a row that has them stays as it is. No queue may write into the table meanwhile: a row that it replaces
between this reading and this writing would get its old value back.
"""

import sys

from mmvm.study import results
from mmvm.study.parameters import Parameters
from workflow import lists

OWN_COLUMNS = ("objective", "beta", "seed", *Parameters.not_hashed)  # or that no run is known by: a folder


def words(run: lists.Run) -> str:
    """The settings of a run that have no column of their own."""
    return ";".join(word for word in run.settings if word.partition("=")[0] not in OWN_COLUMNS) or "the profile"


def main(path: str) -> None:
    for run in lists.read(path).values():
        if not run.table.exists():
            continue
        rows, said = results.read(run.table), words(run)
        own = rows[(rows["run"] == run.parameters.run_hash()) & (rows["profile"] == run.parameters.profile)]
        lacking = ~own["note"].map(lambda note, said=said: note.split("; ")[0] == said).astype(bool)
        if lacking.any():  # all rows of the run are written: `append` replaces a metric as a whole
            results.append(own.assign(note=own["note"].where(~lacking, [
                f"{said}; {note}".removesuffix("; ") for note in own["note"]])), run.table)
            print(f"{run.parameters.out}: {int(lacking.sum())} rows say {said}")


if __name__ == "__main__":
    main(*sys.argv[1:])
