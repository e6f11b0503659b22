"""Moves committed rows, profiles and lists from the parameters' earlier names (`mmvm.study.older`) to today's.

    python tools/rename_parameters.py record RUNS.json     in a checkout of the earlier commit (2522493 or before)
    python tools/rename_parameters.py apply RUNS.json      in this one; prints what it changed

`record` writes, for every run of workflow/config.yaml, its parameters and its hash as that commit knows them. `apply`
gives each row the method and the hash that the same parameters have today, and changes nothing else; rows whose hash
no list explains keep it. A run that is repeated then replaces its own rows, as before.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

ROOT = Path.cwd()
sys.path.insert(0, str(ROOT))


def record(path: Path) -> None:
    from workflow import grid

    config = yaml.safe_load((ROOT / "workflow/config.yaml").read_text())
    runs = [{"study": study, "values": asdict(run.parameters), "hash": run.parameters.run_hash()}
            for study, profiles in config["grids"].items() for profile in profiles
            for run in grid.runs({**config, "experiment": study, "profile": profile}).values()]
    path.write_text(json.dumps(runs))


def apply(path: Path) -> None:
    import pandas as pd

    from mmvm.study import STUDIES, older

    now = {}
    for run in json.loads(path.read_text()):
        p = STUDIES[run["study"]].from_dict(older.present(STUDIES[run["study"]], run["values"]))
        now[run["hash"]] = (p.method(), p.run_hash())
    for file in sorted((ROOT / "data/results").glob("*.csv")):
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        known = table["run"].isin(now)
        table.loc[known, "method"] = [now[run][0] for run in table.loc[known, "run"]]
        table.loc[known, "run"] = [now[run][1] for run in table.loc[known, "run"]]
        table.to_csv(file, index=False, lineterminator="\n")
        print(f"{file.name}: {known.sum()} of {len(table)} rows renamed")
    for file in sorted((ROOT / "book/params").glob("*.yaml")):
        study = next((name for name in STUDIES if file.stem.startswith(f"{name}-")), None)
        if study and _rename_profile(file, STUDIES[study]):
            print(f"{file.name}: renamed")


def _rename_profile(file: Path, kind: type) -> bool:
    """Line by line, so that comments stay; a text with options takes the place of the first line that it replaces."""
    from mmvm.study import older

    before = yaml.safe_load(file.read_text())
    after = older.present(kind, before)
    lines, written = [], set()
    places = {**{name: parameter for name, (parameter, _) in {**older.SHARED, **kind.older}.items()},
              "compile": "plan"}
    for line in file.read_text().splitlines():
        name = line.partition(":")[0]
        name = places.get(name, name) if name not in after else name
        if line.startswith("#") or name not in after or before.get(name) == after[name]:
            lines.append(line)
        elif name not in written:
            written.add(name)
            lines.append(f"{name}: {after[name]}")
    file.write_text("\n".join(lines) + "\n")
    if yaml.safe_load(file.read_text()) != after:
        raise SystemExit(f"{file} could not be renamed line by line: {after}")
    return before != after


if __name__ == "__main__":
    {"record": record, "apply": apply}[sys.argv[1]](Path(sys.argv[2]))
