"""Rows that are kept out of the training: how they are drawn, and how a run looks at them between its epochs."""

import json
import operator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mmvm.checks import check_split, findings
from mmvm.data import MultimodalData, check_units, groups_of
from mmvm.errors import UserError
from mmvm.identity import fingerprint
from mmvm.networks.modes import evaluating
from mmvm.training.batches import on_gpu_if_it_fits, prefetched
from mmvm.training.plan import autocast
from mmvm.training.run import PREFIX, Run, over_observed
from mmvm.training.update import batch_means


def split(data: MultimodalData, by: Any = None, validation: float = 0.1,
          seed: int = 0) -> tuple[MultimodalData, MultimodalData]:
    """Training and validation rows of `data`, each in the order that they had; no group of rows is in both.

    by          (N,) names or numbers of the groups that stay together: people, families, days; None: every row alone;
            a `ValueWarning` where rows of one id are then in both parts
    validation  share of the rows, between 0 and 1, or their number, an integer; met as nearly as the groups let it
    seed        of the choice, which depends on nothing else but the groups' names and sizes: the first numbers of
                PCG64(seed), so draw what else is random about the rows from another seed

    Modalities that are standardised keep the numbers that `data` took from all rows. Rows without ids get their numbers
    as ids, so that both parts know which of `data` they are: by[[int(i) for i in train.ids]] divides again.
    Raises `UserError` where a row has no group, where the index of `by` is not that of the samples, or where there are
    too few.

    >>> train, rows = split(data, by=np.arange(60) // 10, validation=0.2)
    >>> len(train), len(rows)
    (50, 10)
    """
    n = len(data)
    if not isinstance(validation, float | bool) and hasattr(validation, "__index__"):
        validation = operator.index(validation)  # NumPy's too
    if isinstance(validation, bool | str) or not 0 < validation < (n if isinstance(validation, int) else 1):
        raise UserError(f"validation must be a share between 0 and 1, or a number of rows below {n:,}, got "
                        f"{validation}")
    names, numbers, sizes = groups_of(np.arange(n) if by is None else by, data, "`by`")
    if len(names) < 2:
        raise UserError(f"there is {len(names)} group in `by`, and both parts need one: divide by something finer")
    wanted = validation if isinstance(validation, int) else validation * n
    chosen: list = []
    total = 0
    for group in np.argsort(np.random.PCG64(seed).random_raw(len(names)), kind="stable"):  # raw: alike in all NumPys
        with_it = total + int(sizes[group])
        if with_it < n and abs(with_it - wanted) <= abs(total - wanted):
            chosen, total = [*chosen, group], with_it
    if not chosen:
        raise UserError(f"validation asks for {round(wanted, 1):,.10g} of {n:,} rows, but the smallest of the "
                        f"{len(names)} groups has {sizes.min():,}: ask for more, at least validation={sizes.min()}" +
                        ", or divide by something finer" * bool(sizes.min() > 1))
    held = torch.from_numpy(np.isin(numbers, chosen))
    data = data if data.ids is not None else replace(data, ids=list(map(str, range(n))))
    parts = data.subset(~held), data.subset(held)
    if by is None:  # nobody said what belongs together, and rows of one id do: visits of a person
        check_split(*parts, "validation")
    return parts


class Validation:
    """Looks at validation rows after every `every`-th epoch: means over them of the loss and its terms, in eval mode,
    with the same draws at every look, and with schedules at their end, so that epochs compare. What the look watches
    for is `run.history.watch`; with `patience` the run keeps its best weights and ends after so many looks without a
    better one. No random number of the training is used up."""

    def __init__(self, run: Run, data: MultimodalData, batch_size: int, precision: str, every: int,
                 patience: int | None):
        device = next(run.model.parameters()).device
        self.data, self.fingerprint = on_gpu_if_it_fits(data, device), fingerprint(data)
        self.run, self.batch_size, self.precision = run, batch_size, precision
        self.every, self.patience = int(every), patience and int(patience)

    def look(self, epoch: int) -> dict[str, float]:
        """The means, by the names that they have in the history; empty in epochs without a look."""
        if epoch % self.every:
            return {}
        told = self.run.ranks.told(json.dumps(self._means()) if self.run.ranks.rank == 0 else None)
        return {PREFIX + name: value for name, value in json.loads(told).items()}  # all processes stop after one epoch

    def over(self) -> bool:
        """Nothing was better for so long as there is patience."""
        return self.patience is not None and self.run.epoch - (self.run.history.best or 0) >= self.patience * self.every

    @torch.no_grad()
    def _means(self, most: int | None = None) -> dict[str, float]:
        """Over the first `most` rows, or all; without the gradient's norm."""
        model, device = self.run.model, next(self.run.model.parameters()).device
        index = torch.arange(len(self.data), device=self.data.device)[:most]
        step = max(self.run.step, getattr(model, "settled_at", 0))
        totals = torch.zeros((), dtype=torch.float64, device=device)
        with evaluating(model, 0), autocast(self.precision, device):
            for batch in prefetched(self.data, list(index.split(self.batch_size)), device):
                terms = model(batch.x, batch.observed, step, **batch.told)
                names, means = batch_means(terms.loss.new_zeros(()), terms, self.data.names)
                totals = totals + means * len(terms.loss)
        return over_observed(dict(zip(names[1:], (totals[1:] / len(index)).tolist())), self.data, index)

    def check(self, train: MultimodalData, values: bool) -> None:
        """Raises `UserError` where these rows are not like those of `train`, or the name to watch is none."""
        if self.data.names != train.names:
            raise UserError(f"the validation rows have the modalities {self.data.names}, the training rows "
                            f"{train.names}: give both the same, of the same shapes")
        check_units(self.run.model, self.data)
        if values:
            wrong, _ = findings(self.data, self.run.model)  # what is poor was said of the training rows
            if wrong:
                raise UserError(f"validation rows: {wrong[0]}")
            check_split(train, self.data, "validation")
        watch, known = self.run.history.watch, list(self._means(most=2))
        if watch not in known:
            raise UserError(f"watch={watch!r} is no term of this loss: choose one of {', '.join(known)}")

    def settings(self) -> dict:
        """What a continued run must agree on."""
        return {"validation_data": self.fingerprint[:10], "validate_every": self.every, "patience": self.patience,
                "watch": self.run.history.watch}
