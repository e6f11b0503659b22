"""A beta chosen on validation rows: one run for every beta and seed, what each is worth, and which beta is best."""

import contextlib
import inspect
import io
import json
import math
import multiprocessing
import os
import pickle
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmvm import evaluation, paths
from mmvm.checks import ValueWarning, check_values
from mmvm.data import MultimodalData
from mmvm.errors import UserError
from mmvm.files import write_text
from mmvm.model import MultimodalVAE
from mmvm.networks.modes import seeded
from mmvm.training import TrainingDiverged, TrainingWarning, fit, split

if TYPE_CHECKING:
    import pandas as pd

TABLE, SAID = "table.csv", "warnings.json"  # in the folder of the sweep, and of each run
OWN = ("model", "data", "seed", "out", "config", "validation", "on_epoch")  # of `fit`: the sweep gives these
PASSED_ON = tuple(name for name in inspect.signature(fit).parameters if name not in OWN)
BETTER = {"error": -1, "imputation": -1, "probe": 1}  # what a beta may be chosen by: where smaller is better, -1
# warnings that are not of one run: the values are looked at once before all of them
PASSED_OVER = (ValueWarning, DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)


@dataclass(frozen=True)
class _Job:
    """All that one run needs; goes to a worker in one piece."""

    train: MultimodalData
    held: MultimodalData
    build: Callable[..., MultimodalVAE]
    training: dict
    out: Path | None
    threads: int

    def run(self, beta: float, seed: int) -> dict:
        """Trains, or goes on, and measures: a row of the table."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")  # no bars of several runs at once; what is warned of is in the table
                return {"beta": beta, "seed": seed, **self._trained(beta, seed, said)}
        finally:
            torch.set_num_threads(threads)

    def _trained(self, beta: float, seed: int, said: list) -> dict:
        with seeded(seed):
            model = self.build(self.train, beta=beta)
        if not isinstance(model, MultimodalVAE):
            raise UserError(f"build gave a {type(model).__name__}: it must return a MultimodalVAE")
        folder = None if self.out is None else self.out / f"beta={beta!r},seed={seed}"
        before = json.loads((folder / SAID).read_text()) if folder and (folder / SAID).exists() else []

        def sentences(*more: str) -> list[str]:
            ours = [str(warning.message) for warning in said if not issubclass(warning.category, PASSED_OVER)]
            return list(dict.fromkeys([*before, *ours, *more]))

        def keep(*_: object) -> None:  # a run that goes on, or is done, warns of nothing again
            if folder and sentences() != before:
                write_text(folder / SAID, json.dumps(sentences()))
        try:
            history = fit(model, self.train, seed=seed, out=folder, validation=self.held, on_epoch=keep,
                          **self.training)
        except TrainingDiverged as error:
            return {"warnings": "\n".join(sentences(str(error)))}
        best = history.best if self.training.get("patience") else history.epochs[-1]["epoch"]
        row, wrong = measured(model, self.train, self.held)
        return {"epoch": best, "seconds": history.epochs[-1]["seconds"], **row,
                "warnings": "\n".join(sentences(*wrong))}


def sweep(data: MultimodalData, betas: Sequence[float], seeds: Sequence[int] = (0,), *, epochs: int,
          workers: int = 1, out: str | os.PathLike | None = None, by: Any = None, validation: float = 0.1,
          split_seed: int = 0, build: Callable[..., MultimodalVAE] | None = None, latent_dim: int | None = None,
          objective: str | None = None, threads: int = 1, say: Callable[[str], None] | None = print,
          **training: Any) -> "pd.DataFrame":
    """One model for every beta and seed, trained on most rows of `data` and measured on the others: a row each.

    workers     processes that train at the same time; 1: none but this one. The table does not depend on it
    out         folder of the runs, one each: a sweep that was stopped goes on, a finished run is not trained again, a
                new beta is added; table.csv there is the last call's table. None: nothing is kept
    by, validation, split_seed   which rows are held back, as of `mmvm.split`: groups stay together, a share or a number
    build       build(data, beta=...) -> MultimodalVAE, called after the seed is set; for workers > 1 a function of a
                module. None: `MultimodalVAE.for_data` with `latent_dim`, 16, and `objective`, mmvm, a method's text
    threads     of each run; rounding depends on it
    say         gets a line when a run is done; None: nobody
    training    what `fit` takes besides: learning_rate, batch_size, patience, device, ...

    Columns, of the rows held back, in nats a sample and unweighted: `error` of the reconstruction and `imputation`
    from the other modalities, each the sum over modalities of `error/NAME` and `imputation/NAME`, the mean over
    sources; `rate/NAME`, what the latents hold about the sample (`evaluation.diagnostics`); with labels `probe`, the
    mean of `probe/NAME`, accuracies of a linear probe from 0 to 1, of several labels a sample their mean AUROC.
    Besides beta, seed, `epoch` of the weights, `seconds` of training, `warnings`, a line each; NaN of what diverged.

    Then `best_beta(table, by="imputation")`, and a model of all rows. Raises `UserError`, `TrainingInterrupted`.

    >>> table = sweep(data, betas=[0.1, 1.0], epochs=1, latent_dim=2, say=None)
    >>> table["beta"].tolist(), "imputation/b" in table
    ([0.1, 1.0], True)
    """
    betas, seeds = _numbers(betas, "betas", float), _numbers(seeds, "seeds", int)
    if workers < 1 or threads < 1:
        raise UserError(f"workers={workers}, threads={threads}: both must be at least 1")
    usual: dict[str, Any] = {"latent_dim": latent_dim, "objective": objective}
    usual = {name: value for name, value in usual.items() if value is not None}
    _check_training(training, usual.get("objective", ""))
    if build and usual:
        raise UserError(f"`build` makes the model, {', '.join(usual)} would change nothing: leave out one or the other")
    build = build or partial(MultimodalVAE.for_data, **usual, say=None)
    train, held = split(data, by, validation, split_seed)
    if training.get("check", "on") == "on":
        check_values(train)
    out = None if out is None else paths.home(out)
    job = _Job(train, held, build, {"epochs": epochs, **training}, out, threads)
    wanted, rows = [(beta, seed) for beta in betas for seed in seeds], []
    for row in (job.run(*own) for own in wanted) if workers == 1 else _side_by_side(job, wanted, workers):
        rows.append(row)
        if say is not None:
            say(_line(row, len(rows), len(wanted)))
    import pandas as pd

    table = pd.DataFrame(rows)
    table = table[[name for name in table if name != "warnings"] + ["warnings"]]
    if out is not None:
        write_text(out / TABLE, table.to_csv(index=False))
    return table


def best_beta(table: "pd.DataFrame", by: str = "imputation") -> float:
    """The beta of a sweep whose column `by` is best in the mean over seeds: "error", "imputation", "probe" or that of
    one modality ("imputation/NAME"); of equals the larger, none of which a run has no number. A `TrainingWarning` where
    it is the smallest or largest of several, with one to try besides. Raises `UserError`.

    >>> import pandas as pd
    >>> best_beta(pd.DataFrame({"beta": [0.1, 1.0], "imputation": [3.0, 2.5]}))
    1.0
    """
    best, more = best_of(table, by)
    if more is not None:
        warnings.warn(f"beta {best:g} is the best by {by!r} and at an end of those that were tried: a better one may "
                      f"lie beyond, try {more:g} too", TrainingWarning, stacklevel=2)
    return best


def best_of(table: "pd.DataFrame", by: str) -> tuple[float, float | None]:
    """`best_beta`, and the next beta beyond the end of those tried that it lies at, a factor of four; None inside."""
    if by not in (known := [name for name in table if name.partition("/")[0] in BETTER]):
        raise UserError(f"the table has no column {by!r} to choose by: use one of {', '.join(known)}")
    if not len(means := table.groupby("beta")[by].agg(lambda own: own.mean(skipna=False)).dropna()):
        raise UserError(f"no beta has a number in column {by!r} for all of its seeds: read the column `warnings`")
    means = BETTER[by.partition("/")[0]] * means
    best, tried = float(means.index[means == means.max()].max()), sorted(set(table["beta"]))
    return best, {tried[0]: best / 4 or None, tried[-1]: 4 * best}.get(best) if len(tried) > 1 else None


def measured(model: MultimodalVAE, train: MultimodalData, held: MultimodalData) -> tuple[dict[str, float], list[str]]:
    """What `sweep` says of a model, column -> number, and why a number is NaN. Draws are seeded."""
    errors, imputed = evaluation.reconstruction_error(model, held), evaluation.imputation_error(model, held)
    np.fill_diagonal(imputed, np.nan)
    imputed = np.ma.masked_array(imputed, np.isnan(imputed)).mean(0).filled(np.nan)
    of_names = {"error": errors, "imputation": imputed}
    said: list[str] = []
    if held.labels is not None:
        try:
            of_names["probe"], said = _probe(model, train, held)
        except UserError as error:
            said, of_names["probe"] = [str(error)], np.full(len(held.specs), np.nan)
    total = {name: values.mean() if name == "probe" else values.sum() for name, values in of_names.items()}
    rates = {name: value for name, value in evaluation.diagnostics(model, held).items() if name.startswith("rate/")}
    return {**{name: float(value) for name, value in total.items()},
            **{f"{what}/{name}": float(value) for what, values in of_names.items()
               for name, value in zip(held.names, values)}, **rates}, said


def _probe(model: MultimodalVAE, train: MultimodalData, held: MultimodalData) -> tuple[np.ndarray, list[str]]:
    """(M,): accuracy, or the mean over labels of the AUROC; and a sentence where no label has one."""
    if held.labels is not None and held.labels.ndim == 1:
        return evaluation.linear_probe(model, train, held), []
    from mmvm.evaluation import multilabel

    auroc = np.ma.masked_invalid(multilabel.linear_probe(model, train, held)["auroc"]).mean(1)
    return auroc.filled(np.nan), [
        f"no probe of {name!r}: no label is both present and absent among its samples, of training and held back; "
        "data.inventory('labels') counts them" for name, none in zip(held.names, np.ma.getmaskarray(auroc)) if none]


def _numbers(given: Any, what: str, kind: type) -> list:
    given = list(given) if isinstance(given, Sequence | np.ndarray | torch.Tensor | range) else [given]
    values = [float(x) for x in given if isinstance(x, int | float | np.number | torch.Tensor)]
    if not values or len(values) < len(given) or len(set(values)) < len(values) or not all(
            math.isfinite(x) and x >= 0 and kind(x) == x for x in values):
        raise UserError(f"{what} must be different {'whole ' * (kind is int)}numbers of at least 0, got {given}")
    return [kind(x) for x in values]


def _check_training(training: dict, objective: Any) -> None:
    if wrong := [name for name in training if name not in PASSED_ON]:
        raise UserError(f"{', '.join(wrong)}: a sweep passes on to `fit` {', '.join(PASSED_ON)}; what else `fit` takes "
                        "it sets, and of a model, such as encoders, give build(data, beta=...) -> model")
    if not isinstance(objective, str):
        raise UserError("objective must be a text, as in 'mmvm:gate=soft', of which every run makes its own: give "
                        "`build` for others")


def _line(row: dict, n: int, of: int) -> str:
    shown = ", ".join(f"{name} {row[name]:.4g}" for name in ("error", "imputation", "probe") if name in row)
    return f"{n}/{of} beta {row['beta']:g}, seed {row['seed']}: {shown or 'diverged'}" + (
        f" ({row['warnings'].count(chr(10)) + 1} warnings)" if row["warnings"] else "")


# workers -------------------------------------------------------------------------------------------------------------

def _side_by_side(job: _Job, wanted: list[tuple], workers: int) -> Iterator[dict]:
    """The same rows in the same order. Processes are started anew, not forked: a fork of PyTorch's threads hangs."""
    others, sent = set(multiprocessing.active_children()), _picklable(job)
    pool = ProcessPoolExecutor(min(workers, len(wanted)), multiprocessing.get_context("spawn"), initializer=_receive,
                               initargs=(sent,))
    try:
        for future in [pool.submit(_run, beta, seed) for beta, seed in wanted]:
            yield future.result()
    except KeyboardInterrupt:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # between two updates, with a checkpoint
        raise
    except BrokenProcessPool:
        raise UserError("a worker has ended before its run had. In a script the call of sweep must stand under "
                        "`if __name__ == '__main__':`, because workers import the script; else memory may be short: "
                        "use fewer workers, and the same call again goes on") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _picklable(job: _Job) -> bytes:
    cure = ("give a function of a module (no lambda, none inside another function, none of a notebook), or workers=1")
    own, main = getattr(job.build, "func", job.build), sys.modules["__main__"]
    if isinstance(own, types.FunctionType) and own.__module__ == "__main__" and not hasattr(main, "__file__"):
        raise UserError(f"a worker cannot import build={own.__name__}: {cure}")
    if job.train.files:
        raise UserError("workers would copy the files that these data look into: use workers=1")
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(f"build={own!r} cannot be sent to a worker ({error}): {cure}") from None


_job: _Job  # in a worker


def _receive(job: bytes) -> None:
    """In a worker, before its first run. It ends with the process that started it, whose next sweep then goes on."""
    global _job
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _job = pickle.loads(job)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _run(beta: float, seed: int) -> dict:
    return _job.run(beta, seed)
