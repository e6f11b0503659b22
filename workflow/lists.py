"""Lists of runs: a YAML file in, every run it names out, checked before any of them starts.

`python -m mmvm queue` works through a list on one machine, workflow/Snakefile takes the same list to a cluster:

    study: my-study                 # as in `python -m mmvm train`
    profile: laptop                 # a name in book/params, or a YAML file seen from the repository's root
    results: runs/mine.csv          # may be left out: data/results/<study>.csv
    runs:
      - {settings: {objective: poe}, betas: [0.25, 1], seeds: [0, 1]}
      - {settings: {objective: mmvm}, betas: [1], seeds: [0], priority: -1}

Every beta of an entry is run with every seed, all betas of the first seed first; a run that two entries name is made
once, also where they spell its settings differently. `settings` are parameters of the study; what is left out is as in
the profile. A lower priority comes earlier (0 where it is left out), and equal ones in the order of the list;
`priority: [1, 2]` is one for each of the seeds. An entry may name another study or profile.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mmvm import options, paths
from mmvm.errors import UserError
from mmvm.study.registry import STUDIES
from mmvm.study.study import Study

LIST = ("study", "profile", "results", "runs")
ENTRY = ("settings", "betas", "seeds", "priority", "study", "profile")
OF_THE_GRID = {"beta": "betas", "seed": "seeds", "out": "the folder, which follows from the other settings"}


@dataclass(frozen=True)
class Run:
    """One run of a list: its parameters, `out` included, the command line's words for them, and where its rows go."""

    parameters: Study
    profile: str
    settings: tuple[str, ...]
    priority: int
    table: Path

    def train_words(self) -> list[str]:
        """Of `python -m mmvm train`, called in the repository's root."""
        words = [self.parameters.name, "--profile", self.profile]
        for setting in self.settings:
            words += ["--set", setting]
        return [*words, "--out", self.parameters.out]

    def train_arguments(self) -> str:
        return shlex.join(self.train_words())

    def papermill_arguments(self) -> str:
        """Every parameter that is not at its default. -r keeps text text, also where it looks like a number."""
        words = []
        for name, value in asdict(self.parameters).items():
            if value != getattr(type(self.parameters), name):
                words += ["-r" if isinstance(value, str) else "-p", name, str(value)]
        return shlex.join(words)


def read(path: str | Path) -> dict[str, Run]:
    """The runs of a list file by folder, the first to run first. Raises `UserError` with list and entry at fault."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no list {path}: name a YAML file of runs; workflow/lists/smoke.yaml shows the form")
    content = options.read_yaml(path, f"list {path}", "workflow/lists/smoke.yaml shows the form")
    return expand(content, f"list {path}")


def expand(content: Mapping, name: str) -> dict[str, Run]:
    """The runs of a list's content by folder, the first to run first; `name` is what a mistake is reported under."""
    _refuse_unknown(name, "a list", content, LIST)
    entries, table = content.get("runs"), content.get("results") or ""
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{name}: runs must be a list of entries, got {entries!r}: write lines of "
                        "`- {settings: {...}, betas: [...], seeds: [...]}`")
    if not isinstance(table, str) or not (table == "" or table.endswith(".csv")):
        raise UserError(f"{name}: results must be a csv file, got {table!r}: correct it, or leave it out for "
                        "data/results/<study>.csv")
    found: dict[str, Run] = {}
    known: dict[tuple[Path, str, str], str] = {}  # table, profile and hash of a run -> its folder
    for number, entry in enumerate(entries, 1):
        where = f"{name}, entry {number}"
        _refuse_unknown(where, "an entry", entry, ENTRY)
        try:
            for run in _entry({"study": content.get("study"), "profile": content.get("profile"), **entry},
                              table):
                p = run.parameters
                folder = known.setdefault((run.table, p.profile, p.run_hash()), p.out)  # 1 and 1.0 are one run
                if folder != p.out:
                    run = replace(run, parameters=replace(p, out=folder))
                if found.setdefault(folder, run).parameters != run.parameters:
                    raise UserError(f"{folder} already belongs to a run with other settings: give one of them another "
                                    "profile, or leave it out")
                if run.priority < found[folder].priority:
                    del found[folder]  # at its new place among those of the lower priority
                    found[folder] = run
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return dict(sorted(found.items(), key=lambda item: item[1].priority))


def place(path: Path) -> str:
    """The name of a file as seen from the repository's root, where the jobs run: relative if it lies there."""
    path = Path(paths.REPOSITORY, path)
    return str(path.relative_to(paths.REPOSITORY) if path.is_relative_to(paths.REPOSITORY) else path)


def _refuse_unknown(where: str, what: str, mapping, known: tuple[str, ...]) -> None:
    if not isinstance(mapping, Mapping):
        raise UserError(f"{where} must hold names and values, got {mapping!r}; {what} has: {', '.join(known)}")
    unknown = sorted(str(key) for key in set(mapping) - set(known))
    if unknown:
        raise UserError(f"{where}: unknown key {', '.join(unknown)}; {what} has: {', '.join(known)}")


def _entry(entry: Mapping, table: str) -> Iterable[Run]:
    name, profile, priority = entry["study"], entry["profile"], entry.get("priority", 0)
    settings = {} if entry.get("settings") is None else entry["settings"]
    kind = STUDIES[name]
    if not isinstance(profile, str):
        raise UserError(f"profile must be a name in book/params or a YAML file, got {profile!r}")
    for key in ("betas", "seeds"):
        if not isinstance(entry.get(key), list) or not entry[key]:
            raise UserError(f"{key} must be a list, got {entry.get(key)!r}: write {key}: [1]")
    priorities = priority if isinstance(priority, list) else [priority] * len(entry["seeds"])
    if {type(number) for number in priorities} != {int} or len(priorities) != len(entry["seeds"]):
        raise UserError("priority must be an integer, the lower the earlier, or a list of one for each of the "
                        f"{len(entry['seeds'])} seeds, got {priority!r}")
    if not isinstance(settings, Mapping):
        raise UserError(f"settings must hold names and values, got {settings!r}: write settings: {{objective: mmvm}}")
    for key, instead in OF_THE_GRID.items():
        if key in settings:
            raise UserError(f"{key} is no setting of an entry: it comes from {instead}")
    for key, value in settings.items():
        if not isinstance(value, (str, int, float)):
            raise UserError(f"the setting {key} must be one number, text, true or false, got {value!r}")
    file = profile.endswith((".yaml", ".yml"))
    start = kind.from_profile(str(paths.REPOSITORY / profile) if file else profile)
    for seed, first in zip(entry["seeds"], priorities):
        for beta in entry["betas"]:
            words = tuple(f"{key}={value}" for key, value in {**settings, "beta": beta, "seed": seed}.items())
            p = start.with_settings(words)
            yield Run(replace(p, out=_folder(p, settings)), profile, words, first,
                      Path(paths.REPOSITORY, table or paths.results_root() / f"{name}.csv"))


def _folder(p: Study, settings: Mapping) -> str:
    """runs/grid/<study>/<profile>/<method>-<other settings>-b<beta>-s<seed>, from the root if it lies there."""
    named = {"objective", *p.not_hashed}
    others = [f"{name}={value}" for name, value in settings.items()
              if name not in named and name not in re.split("[/=]", p.method())]
    words = "-".join([p.method(), *others, f"b{p.beta:g}", f"s{p.seed}"])
    return place(paths.runs_root() / "grid" / p.name / p.profile / re.sub(r"[^\w.=-]", "-", words))
