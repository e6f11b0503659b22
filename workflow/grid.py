"""What config.yaml or a list asks for, as runs, and what their results depend on. The Snakefile turns this into jobs.

Snakemake looks at the times of files, and git gives every file it writes the time of the checkout. So what a run
depends on is handed to Snakemake as a parameter of its job, by content: a digest of the code, and one of the settings.
"""

import ast
import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from mmvm import paths
from mmvm.errors import UserError
from mmvm.study import results
from mmvm.study.registry import STUDIES
from workflow import lists
from workflow.lists import Run, place

# Files and folders by name, without ".py": figures, commands, and what only a reader's own code calls change no number.
# A new one counts until it stands here.
IN_NO_RUN = {"__main__", "bring", "chapter", "figures", "keep", "new", "pretrained", "registry", "search", "show",
             "template"}
# Modules that only look at trained weights: when they change, a run is evaluated again, not trained again.
EVALUATION = {"evaluation", "results", "alignment", "caption_quality", "choose", "deviance", "fid"}
NAME = ["experiment", "profile", "method", "beta", "seed"]


def runs(config: Mapping) -> dict[str, Run]:
    """By folder, the runs of the list file that `config["list"]` names, or else of the grid that `config["study"]`
    and `config["profile"]` name. Every setting is checked before any job starts: raises `UserError`, with the entry at
    fault."""
    if config.get("list"):
        return lists.read(Path(paths.REPOSITORY, config["list"]))
    study, profile = config["study"], config["profile"]
    grids = config["grids"].get(STUDIES[study].name, {})
    if profile not in grids:
        raise UserError(f"there is no grid of {study} for profile {profile!r}; there are: {', '.join(grids)}")
    return lists.expand({"study": study, "profile": profile, "results": config.get("results"),
                         "runs": grids[profile]}, f"grid {study}, {profile}")


def values(run: Run) -> str:
    """A digest of all parameters: the same after an edit of the profile's comments."""
    return _digest(asdict(run.parameters))


def trained_with(run: Run, code: str) -> str:
    """A digest of what the weights depend on. Not the number of epochs: trained weights are trained further."""
    return _digest([code, run.parameters.config()])


# what results depend on ----------------------------------------------------------------------------------------------

def code_digest(study: str, leave_out: Iterable[str] = ()) -> str:
    """A digest of the code that a study's runs depend on: the module and the study's own folder, without the files and
    folders named. Comments, docstrings and layout do not count."""
    own = Path(sys.modules[STUDIES[study].__module__].__file__).parent
    files = [(folder.name, path) for folder in (paths.REPOSITORY / "mmvm", own) for path in sorted(folder.rglob("*.py"))
             if not {Path(part).stem for part in path.relative_to(folder).parts} & set(leave_out)]
    return _digest([[folder, path.name, _tree_of(path.read_text())] for folder, path in files])


def notebook_digest(path: str | Path) -> str:
    """A digest of a notebook's code cells: an edit of its prose leaves it as it is."""
    cells = json.loads(Path(path).read_text())["cells"]
    return _digest(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])


@functools.cache  # several digests are of the same files
def _tree_of(code: str):
    return _tree(ast.parse(code))


def _tree(node):
    """A syntax tree as lists, without docstrings. Empty fields are left out, because Python versions differ in them."""
    if isinstance(node, list):
        return [_tree(child) for child in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    values = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
        values["body"] = node.body[1:]
    return [type(node).__name__, *([name, _tree(value)] for name, value in values.items() if value not in (None, []))]


def _digest(what) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


# collecting ----------------------------------------------------------------------------------------------------------

def by_table(runs: Mapping[str, Run]) -> dict[Path, list[str]]:
    """The results.csv of all runs, per table that they are collected in."""
    found: dict[Path, list[str]] = {}
    for folder, run in runs.items():
        found.setdefault(run.table, []).append(f"{folder}/results.csv")
    return found


def lacks(table: Path, files: Iterable[Path]) -> bool:
    """Whether `table` lacks a row of one of the results.csv that exist, whichever columns were there when each was
    written. A checkout of an older `table` looks new to Snakemake, and only this tells."""
    return any(len(_new(results.read(file), table)) for file in files if file.exists())


def _new(rows: pd.DataFrame, table: Path) -> pd.DataFrame:
    """The rows that `table` lacks. Notes do not count: tools/note_settings.py adds to them in the table."""
    columns = [name for name in results.COLUMNS if name != "note"]
    there = set(results.read(table)[columns].itertuples(index=False, name=None)) if table.exists() else set()
    return rows[[row not in there for row in rows[columns].itertuples(index=False, name=None)]]


def collect(files: Iterable[str], table: Path) -> str:
    """Appends the rows of every file to `table`, in place of older ones of the same run. Says how many, and which other
    runs in `table` have the same name: those of older parameters stay, and tables of the book would average over both.
    """
    lines, names, collected = [], set(), set()
    for file in files:
        rows = results.read(file)
        # the whole of a metric of which a row is new; the others keep the notes that they have in the table
        measured = pd.MultiIndex.from_frame(rows[results.KEY[:4]])
        everything = results.append(rows[measured.isin(measured[rows.index.isin(_new(rows, table).index)])], table)
        lines.append(f"{len(rows)} rows of {file}")
        collected |= set(rows["run"])
        names |= set(rows[NAME].itertuples(index=False, name=None))
    for name, others in everything[~everything["run"].isin(collected)].groupby(NAME):
        if name in names:
            words = ", ".join(f"{column} {value}" for column, value in zip(NAME, name))
            runs_of_it = ", ".join(others["run"].unique())
            lines.append(f"{place(table)} also has {words} of other parameters: run {runs_of_it}")
    return "\n".join(lines) + "\n"
