"""Classifiers of real samples that a grid of runs shares: trained once, kept by all that they depend on."""

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress

import numpy as np
import torch
from torch import nn

from mmvm import files, paths
from mmvm.errors import UserError
from mmvm.training.lock import in_turn

CLASSIFIER = "mmvm-classifier-2"  # format of the files of `keep_classifier`


def keep_classifier(name: str, key: list, build: Callable[[], nn.Module], train: Callable[[], nn.Module],
                    device: torch.device) -> nn.Module:
    """The classifier that `train()` returns, kept in runs/classifiers under a hash of `key`, everything it depends on,
    so that a grid trains it once: of runs side by side the others wait. One that cannot be read is trained anew."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = paths.runs_root() / "classifiers" / f"{name}-{digest}.safetensors"
    with ExitStack() as stack:
        for turn in (nullcontext(), in_turn(path.with_suffix(".lock"))):  # to read one, its folder need not be written
            stack.enter_context(turn)
            if path.exists():
                classifier = build()
                with suppress(UserError, RuntimeError):  # RuntimeError: of other shapes
                    classifier.load_state_dict(files.read_safetensors(path, CLASSIFIER, "classifier", "a run")[0])
                    return classifier.to(device).eval()
        classifier = train()
        files.write_safetensors(path, classifier.state_dict(), {"format": CLASSIFIER})
    return classifier


def content_hash(x: torch.Tensor) -> str:
    """SHA-256 of an array's bytes: the part of a `keep_classifier` key that says on which data."""
    return hashlib.sha256(np.ascontiguousarray(x.numpy()).data).hexdigest()
