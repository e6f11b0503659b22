"""The training loop and what it stands on; `loop.fit` is the page to read first."""

from mmvm.training.checkpoint import (
    CHECKPOINT,
    FORMAT,
    git_commit,
    load_weights,
    read_checkpoint,
    versions,
    write_safetensors,
    write_text,
)
from mmvm.training.device import resolve_device, resolve_precision
from mmvm.training.interrupt import TrainingInterrupted
from mmvm.training.loop import fit
from mmvm.training.run import HISTORY, History, TrainingWarning, read_history
from mmvm.training.update import GUARD_INTERVAL, TrainingDiverged

__all__ = ["CHECKPOINT", "FORMAT", "GUARD_INTERVAL", "HISTORY", "History", "TrainingDiverged", "TrainingInterrupted",
           "TrainingWarning", "fit", "git_commit", "load_weights", "read_checkpoint", "read_history", "resolve_device",
           "resolve_precision", "versions", "write_safetensors", "write_text"]
