"""The training loop and what it stands on; `loop.fit` is the page to read first."""

from mmvm.training.checkpoint import CHECKPOINT, FORMAT, load_weights, read_checkpoint
from mmvm.training.device import resolve_device, resolve_precision
from mmvm.training.interrupt import TrainingInterrupted
from mmvm.training.loop import fit
from mmvm.training.run import HISTORY, PREFIX, History, TrainingWarning, read_history
from mmvm.training.update import GUARD_INTERVAL, TrainingDiverged
from mmvm.training.validation import split

__all__ = ["CHECKPOINT", "FORMAT", "GUARD_INTERVAL", "HISTORY", "PREFIX", "History", "TrainingDiverged",
           "TrainingInterrupted", "TrainingWarning", "fit", "load_weights", "read_checkpoint", "read_history",
           "resolve_device", "resolve_precision", "split"]
