"""python -m mmvm train | data | results | studies | new-study | methods | show | queue

Exit status: 0 done, 2 a mistake in the call, the data or the disk (one sentence says which), 130 stopped by Ctrl-C or
SIGTERM, during training with the checkpoint written. Of queue also: 1 a run failed, 3 the time was over before all runs
were done.
"""

import argparse
import os
import signal
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any

from mmvm.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    known = _commands()
    parser = argparse.ArgumentParser(prog="python -m mmvm", description="Train, check data, read results of the "
                                     "MMVM VAE compendium.")
    commands = parser.add_subparsers(dest="command", required=True, metavar=" | ".join(known))
    for add, _ in known.values():
        add(commands, asks_for_help=bool({"-h", "--help"} & set(arguments)))
    options = parser.parse_args(arguments)
    try:
        return known[options.command][1](options)
    except UserError as error:
        print(f"mmvm: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads what is printed has seen enough, as of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left as it ends
        return 0
    except OSError as error:
        line = UserError(f"{error.filename or 'disk'}: {error.strerror or error}; check the path and its rights, or "
                         "choose another folder")
        print(f"mmvm: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"mmvm: {str(error) or 'stopped'}", file=sys.stderr)
        # one that crossed an exec of text, as where a dataclass is made, leaves a mark by which Python would end with
        # SIGINT in place of 130; the next exec takes it away
        exec("")
        return 130


# train ---------------------------------------------------------------------------------------------------------------

def _add_train(commands: Any, asks_for_help: bool) -> None:
    from mmvm.study import registry

    train = commands.add_parser("train", help="train and evaluate one run", description="Trains and evaluates one "
                                "run. The same command continues a run that was stopped or killed.",
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    train.add_argument("study", choices=registry.STUDIES)
    train.add_argument("--profile", default="smoke",
                       help="smoke (default), laptop, translated, paper, or a YAML file of parameters")
    train.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                       help="change one parameter; repeatable")
    train.add_argument("--out", help="folder for checkpoint, history and rows, from the repository's root "
                       "(default: runs/<study>-<hash>)")
    train.add_argument("--fresh", action="store_true", help="start over instead of continuing what is in the folder")
    train.add_argument("--dry-run", action="store_true", help="only print the parameters of the run")
    if asks_for_help:
        train.epilog = "\n\n".join("\n  ".join([f"parameters of {name} and their defaults:", *kind.cell().splitlines()])
                                   for name, kind in registry.usable()[0].items())


def _train(options: argparse.Namespace) -> int:
    from mmvm import paths, study, training
    from mmvm.study import registry
    from mmvm.training import distributed
    from mmvm.training.lock import held
    from mmvm.training.plan import memory_kept

    p = registry.STUDIES[options.study].from_profile(options.profile).with_settings(options.set)
    p = replace(p, out=options.out or p.out or str(paths.runs_root().absolute() / f"{p.name}-{p.run_hash()}"))
    folder = paths.placed(p.out)
    with distributed.started() as ranks:
        if ranks.rank == 0:
            for name, value in vars(p).items():
                print(f"{name:24} {value}")
            if options.fresh and not options.dry_run:
                with held(folder):  # nobody's who trains there
                    for name in (training.CHECKPOINT, training.HISTORY):
                        (folder / name).unlink(missing_ok=True)
        if options.dry_run:
            return 0
        with memory_kept():  # evaluation frees as much as training, and the process ends with it
            result = study.run(p)
    if result is None:
        return 0
    print()
    for row in result.rows:
        if row["source"] == "":
            print(f"{row['metric']:22} {row['target']:6} {row['value']:10.4g}")
    print(f"\n{len(result.rows)} rows in {folder / 'results.csv'}")
    return 0


# data ----------------------------------------------------------------------------------------------------------------

def _add_data(commands: Any, asks_for_help: bool) -> None:
    from mmvm.study import registry

    data = commands.add_parser("data", help="describe a data set, verify it, prepare it, or make a stand-in",
                               description="Describes a data set's files; --simulate writes a stand-in in their "
                               "layout, --check verifies them, --prepare makes what the loader reads.")
    data.add_argument("study", choices=registry.STUDIES)
    data.add_argument("--root", help="folder of the data (default: the data that ships)")
    data.add_argument("--check", action="store_true", help="verify sizes, hashes, counts and labels")
    data.add_argument("--simulate", action="store_true", help="write the stand-in of data that cannot be shipped")
    data.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                      help="an option of the data set's loader, for what is done of --check, --prepare and --simulate; "
                      "lists and mappings as in YAML; without these the command lists the options; repeatable")
    data.add_argument("--full", action="store_true", help="with --check: read everything instead of a sample")
    data.add_argument("--prepare", action="store_true", help="make, or go on making, the arrays that a loader reads")
    data.add_argument("--size", type=int, help="with --prepare: pixels of an image's edge")
    data.add_argument("--equalise", action="store_true", default=None, help="with --prepare: flat histograms")
    data.add_argument("--policy", help="with --prepare: which samples, as in the data set's loader")
    data.add_argument("--workers", type=int, help="with --prepare: processes (default: one per processor)")
    data.add_argument("--dry-run", action="store_true", default=None,
                      help="with --prepare: only say how much disk and time it takes")


# what is said where a study's module `files` lacks a function of this name; in the order in which they are called
ABSENT = {"simulate": "has no stand-in: its data ships with the project",
          "prepare": "needs no preparation: its loader reads the files",
          "check": "has no check of its files: its module `files` needs a function check()"}


def _data(options: argparse.Namespace) -> int:
    from mmvm import options as choices, paths
    from mmvm.study import registry

    module = registry.STUDIES[options.study].files
    if module is None:
        raise UserError(f"{options.study} says nothing of its files: give its class `files`, a module with check(), "
                        "simulate() or prepare()")
    settings = {name: getattr(options, name) for name in ("size", "equalise", "policy", "workers", "dry_run")
                if getattr(options, name) is not None}
    if settings and not options.prepare:
        raise UserError(f"--{next(iter(settings)).replace('_', '-')} belongs to --prepare: add that, or leave it out")
    if options.full and not options.check:
        raise UserError("--full belongs to --check: add that, or leave it out")
    known = {name: getattr(module, name) for name in ABSENT if hasattr(module, name)}
    asked = [name for name in ABSENT if getattr(options, name)]
    for name in asked:
        if name not in known:
            raise UserError(f"{options.study} {ABSENT[name]}")
    chosen = choices.arguments({name: known[name] for name in asked}, options.set)
    if not asked:
        print(f"{module.__doc__}\nVerify the files with --check.")
        for name, function in known.items():
            print(f"--set with --{name}: {', '.join(choices.options_of(function)) or 'nothing'}")
    root = options.root and str(paths.home(options.root))
    for name in asked:
        flags = {"prepare": settings, "check": {"full": True} if options.full else {}, "simulate": {}}[name]
        for flag in flags:
            if flag not in choices.options_of(known[name]):
                raise UserError(f"{options.study} has no --{flag.replace('_', '-')} for --{name}: leave it out")
        said = known[name](root, **{**flags, **chosen[name]})
        print(*([f"written to {said}"] if name == "simulate" else said), sep="\n")
    return 0


# results -------------------------------------------------------------------------------------------------------------

def _add_results(commands: Any, asks_for_help: bool) -> None:
    results = commands.add_parser("results", help="print the committed results",
                                  description="Means, and standard deviations over seeds, of the committed rows.")
    results.add_argument("study", nargs="?", default=None, help="name of a file in data/results, or a csv file")
    results.add_argument("--metric", action="append", help="metric(s) to show (default: probe, coherence)")


def _results(options: argparse.Namespace) -> int:
    from mmvm.study import results

    metrics = options.metric or ["probe", "coherence"]
    names = [options.study] if options.study else results.available()
    if not names:
        raise UserError("no results are committed yet: name a run's results.csv")
    for name in names:
        table = results.read(name)
        unknown = sorted(set(metrics) - set(table["metric"]))
        if unknown:
            raise UserError(f"{name} has no metric {', '.join(unknown)}; it has: "
                            f"{', '.join(sorted(set(table['metric'])))}")
        board = results.scoreboard(_told_apart(table, metrics[0]), metrics)
        if absent := [metric for metric in metrics if board[metric].isna().all()]:
            raise UserError(f"{name} has no average of {', '.join(absent)} to show: read its rows with "
                            "mmvm.study.results.read")
        print(f"{name}: {len(table)} rows")
        print(board.to_string(index=False, na_rep="", float_format="%.3f", formatters={"beta": "{:g}".format}))
    return 0


def _told_apart(table: Any, metric: str) -> Any:
    """Where runs of one method, beta, length and seed differ in other settings, the method with these, of `note`."""
    if not table.drop_duplicates("run").duplicated(["profile", "method", "beta", "updates", "seed"]).any():
        return table
    said = table[table["metric"] == metric].drop_duplicates("run").set_index("run")["note"].replace("the profile", "")
    setting = table["run"].map(said).fillna("")
    return table.assign(method=table["method"] + setting.map(lambda words: f" [{words}]" if words else ""))


# studies -------------------------------------------------------------------------------------------------------------

def _add_studies(commands: Any, asks_for_help: bool) -> None:
    commands.add_parser("studies", help="list the studies that are installed",
                        description="One line a study: its name, what it is about, where it comes from. What is "
                        "registered but cannot be used is named too, with status 2.")


def _studies(options: argparse.Namespace) -> int:
    from mmvm.study import registry

    kinds, problems = registry.usable()
    for name, kind in kinds.items():
        print(f"{name:14} {kind.about()} [{kind.__module__}]")
    for problem in problems:
        print(f"mmvm: {problem}", file=sys.stderr)
    return 2 if problems else 0


# new-study -----------------------------------------------------------------------------------------------------------

def _add_new(commands: Any, asks_for_help: bool) -> None:
    new = commands.add_parser("new-study", help="write the package of a study of your own",
                              description="Writes a folder with a study that works as it is: package, data, networks, "
                              "figures, profile, chapter and test, to be made yours file by file.")
    new.add_argument("name", help="of the study, as in my-study")
    new.add_argument("--into", default="", help="where the folder is made (default: here)")


def _new(options: argparse.Namespace) -> int:
    from mmvm.study import new

    folder = new.write(options.name, options.into)
    print(*sorted(str(path) for path in folder.rglob("*") if path.is_file()), sep="\n")
    print(f"\ninstall it: pip install --no-deps -e {folder}\ntrain it:   python -m mmvm train {options.name}")
    return 0


# methods -------------------------------------------------------------------------------------------------------------

def _add_methods(commands: Any, asks_for_help: bool) -> None:
    commands.add_parser("methods", help="list the methods with their options",
                        description="Every method and its options: values, default, the paper's value, meaning.")


def _methods(options: argparse.Namespace) -> int:
    from mmvm.objectives import spec
    from mmvm.study import registry

    registry.usable()  # a study may bring methods of its own
    for method, option, values, default, paper, meaning in spec.described():
        if method:
            print(f"{method:12} {meaning}")
        else:
            print(f"  {option}: {meaning}\n      {values}; default: {default or 'as said'}"
                  + (f"; paper: {paper}" if paper else ""))
    return 0


# show ----------------------------------------------------------------------------------------------------------------

def _add_show(commands: Any, asks_for_help: bool) -> None:
    show = commands.add_parser("show", help="print what is in a file of ours",
                               description="What a kept model or diffusion, a checkpoint, a classifier or a prepared "
                               "array holds. Its digest is checked; no class that it names is imported.")
    show.add_argument("file", nargs="+", help="such a file, or a folder of them")


def _show(options: argparse.Namespace) -> int:
    from mmvm.study import show

    for file in options.file:
        print(*show.lines(file), sep="\n")
    return 0


COMMANDS = {"train": (_add_train, _train), "data": (_add_data, _data), "results": (_add_results, _results),
            "studies": (_add_studies, _studies), "new-study": (_add_new, _new), "methods": (_add_methods, _methods),
            "show": (_add_show, _show)}


def _commands() -> dict:
    """Ours, and those that packages add under the entry points `mmvm.commands`: modules with add() and call()."""
    modules = {point.name: point.load() for point in entry_points(group="mmvm.commands")}
    return {**COMMANDS, **{name: (module.add, module.call) for name, module in modules.items()}}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside of training too: no traceback
    sys.exit(main())
