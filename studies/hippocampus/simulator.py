"""Five simulated rats in the layout of the rat release: what ships in place of recordings that users must fetch.

An odor-sequence task as in Allen et al. (2016) and Shahbaba et al. (2022): odors A to E at a port, one after another,
each in or out of sequence; a wrong answer ends the sequence. Unit u of an animal fires in trial i and 10 ms bin t as

    count ~ min(Poisson(rate), 10),    log rate = log baseline_u + odor + time + state + theta

odor    a two-dimensional trajectory x_i(t), the same for all animals but for its onset (`ONSETS`): it leaves the
        origin, reaches the odor's corner of a pentagon and turns a little on its way back. Trials scale it (attention),
        shift it by some 20 ms and add noise; in wrong trials it is weak and often goes to the odor that was due, not
        the one that came. Odor units read it along a preferred direction.
time    a field at the unit's own time after port entry, the same for all odors
state   slow fluctuations y_i(t) of arousal and movement, of this trial and this animal alone: what an autoencoder
        finds first, because many units follow them, and what no other animal can know
theta   a rhythm of 8 Hz whose phase differs from trial to trial

Units are of five kinds (`KINDS`). Everything but the odor trajectory is an animal's own. What was drawn is kept beside
the data (truth.npz), so that recovery can be scored. The same seed gives the same spikes: all randomness is raw PCG64
output, whose stream NumPy promises to keep.
"""

import gzip
import io
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmvm import paths
from mmvm.data import MultimodalData
from mmvm.errors import UserError

UNITS = {"Barat": 92, "Buchanan": 79, "Mitt": 104, "Stella": 49, "SuperChris": 46}      # as in the release
TRIALS = {"Barat": 247, "Buchanan": 219, "Mitt": 292, "Stella": 208, "SuperChris": 245}  # two known, three chosen
ONSETS = {"Barat": 0.25, "Buchanan": 0.25, "Mitt": 0.5, "Stella": 0.5, "SuperChris": 0.25}  # s; the paper's windows
BINS = 400                                          # of 10 ms, from -2 s to 2 s around port entry
TIME = -2 + 0.01 * (np.arange(BINS) + 0.5)          # s, centres of the bins
N_ODORS = 5
KINDS = {"silent to the task": 0.24, "odor": 0.12, "odor and time": 0.16, "time": 0.18, "state": 0.30}
TRUTH = "truth.npz"


@dataclass(frozen=True)
class SimulatedRat:
    """One animal's session and what it was made from.

    counts   (trials, units, 400) uint8, spikes per 10 ms bin
    info     (trials, 4) int64: correct 0/1, in-sequence 0/1, position 1-5, odor 1-5
    odor     (trials, 400, 2) the odor latent x_i(t) of each trial
    state    (trials, 400, 2) the animal's own latent y_i(t)
    kind     (units,) index into `KINDS`
    baseline (units,) Hz
    """

    counts: np.ndarray
    info: np.ndarray
    odor: np.ndarray
    state: np.ndarray
    kind: np.ndarray
    baseline: np.ndarray


def simulate(seed: int = 0, units: dict[str, int] = UNITS, trials: dict[str, int] = TRIALS) -> dict[str, SimulatedRat]:
    """The sessions of all animals in `units`, each with its own stream of random numbers."""
    return {name: _session(_Draws(seed, number), n_units, trials[name], ONSETS.get(name, 0.25))
            for number, (name, n_units) in enumerate(units.items())}


def write(root: str | os.PathLike, seed: int = 0, rats: dict[str, SimulatedRat] | None = None) -> Path:
    """Writes sessions (default: `simulate(seed)`) in the release's layout under `root`, and truth.npz beside them.

    The spike arrays hold what the release's hold, the mean of ten 1-ms samples (count / 10), gzipped because 400 bins
    of sparse spikes are 139 MB plain and 3 MB packed. The folder appears at once, whole. Raises `UserError` where
    `root` already holds something.
    """
    root = paths.home(root)
    if root.exists() and any(root.iterdir()):
        raise UserError(f"{root} is not empty: name a new folder with --root, or delete it to simulate again")
    rats = simulate(seed) if rats is None else rats
    root.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        for name, rat in rats.items():
            folder = part / name
            folder.mkdir()
            _write_packed(folder / f"{name.lower()}_spike_data_binned.npy.gz", rat.counts.astype(np.float32) / 10)
            np.save(folder / f"{name.lower()}_trial_info.npy", rat.info)
        np.savez_compressed(part / TRUTH, seed=seed, **{
            f"{name}_{what}": value.astype(np.float16) if value.ndim == 3 else value
            for name, rat in rats.items() for what in ("odor", "state", "kind", "baseline")
            for value in [getattr(rat, what)]})
        (part / "README.txt").write_text(f"Simulated spikes, no recordings: studies.hippocampus.simulator, seed "
                                         f"{seed}. Delete the folder to make it again.\n")
        part.chmod(0o755)  # mkdtemp's folders are private
        if root.exists():
            root.rmdir()
        os.replace(part, root)
    except OSError:
        if not (root.exists() and any(root.iterdir())):  # else another process was faster, with the same content
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def has_truth(data: MultimodalData) -> bool:
    """Whether all animals of `data` were read from a folder that `write` made."""
    folders = {Path(source).parent for source in data.sources if source}
    return len(folders) == 1 and all(data.sources) and (folders.pop() / TRUTH).is_file()


def window_truth(data: MultimodalData, what: str, *, window: int, stride: int,
                 starts: dict[str, int]) -> np.ndarray:
    """The latent "odor" or "state" of every sample of simulated `data`, averaged over its window: (M, N, 2). `starts`
    are the first bins of the animals' windows."""
    found = []
    with np.load(Path(data.sources[0]).parent / TRUTH) as truth:
        for name, trials in zip(data.names, data.trials.numpy()):
            latent = truth[f"{name}_{what}"].astype(np.float32)                                 # (trials, 400, 2)
            first = starts[name] + stride * data.window.numpy()
            found.append(latent[trials[:, None], first[:, None] + np.arange(window)].mean(1))
    return np.stack(found)


# one animal ----------------------------------------------------------------------------------------------------------

def _session(draws: "_Draws", n_units: int, n_trials: int, onset: float) -> SimulatedRat:
    info = _task(draws, n_trials)
    odor, state = _odor_latent(draws, info, onset), _state_latent(draws, n_trials)
    kind = _kinds(draws, n_units)
    log_baseline = np.clip(np.log(1.1) + 0.9 * draws.normal(n_units), np.log(0.1), np.log(12))  # Hz
    reads_odor, reads_time = np.isin(kind, (1, 2)), np.isin(kind, (2, 3))
    direction = 2 * np.pi * draws.uniform(n_units)
    strength = np.exp(np.log(ODOR_GAIN) + 0.4 * draws.normal(n_units)) * reads_odor
    preferred = strength * np.stack([np.cos(direction), np.sin(direction)])                     # (2, units)
    position_gain = np.exp(0.3 * draws.normal(5, n_units) * (kind == 2))                        # mixed selectivity
    field_centre, field_width = 1.6 * draws.uniform(n_units) - 0.3, 0.08 + 0.25 * draws.uniform(n_units)
    field_height = 1.2 * draws.uniform(n_units) * reads_time
    reads_state = np.where(kind == 4, 1.0, np.where(kind == 0, 0.0, 0.4))
    loading = STATE_GAIN * draws.normal(2, n_units) * reads_state
    theta_depth, theta_phase = 0.4 * draws.uniform(n_units), 2 * np.pi * draws.uniform(n_units)
    trial_phase = 2 * np.pi * draws.uniform(n_trials)

    counts = np.empty((n_trials, n_units, BINS), dtype=np.uint8)
    for u in range(n_units):  # one unit at a time: all trials of all units at once would be a gigabyte
        log_rate = (log_baseline[u]
                    + (odor @ preferred[:, u]) * position_gain[info[:, 2] - 1, u][:, None]
                    + field_height[u] * np.exp(-0.5 * ((TIME - field_centre[u]) / field_width[u]) ** 2)
                    + state @ loading[:, u]
                    + theta_depth[u] * np.cos(2 * np.pi * 8 * TIME + theta_phase[u] + trial_phase[:, None]))
        counts[:, u] = draws.poisson(0.01 * np.exp(np.clip(log_rate, None, np.log(80))))
    return SimulatedRat(counts, info, odor, state, kind, np.exp(log_baseline))


ODOR_GAIN, STATE_GAIN = 1.6, 1.0  # nats of log rate per unit of the latent


def _task(draws: "_Draws", n_trials: int) -> np.ndarray:
    """Trials (n, 4): sequences A to E until a wrong answer; one odor in eight is out of its place."""
    rows, position = [], 1
    surprise, instead, answer = (draws.uniform(n_trials) for _ in range(3))
    for i in range(n_trials):
        in_sequence = position == 1 or surprise[i] >= 0.125
        others = [odor for odor in range(1, N_ODORS + 1) if odor != position]
        odor = position if in_sequence else others[int(instead[i] * len(others))]
        correct = answer[i] < (0.92 if in_sequence else 0.65)
        rows.append((correct, in_sequence, position, odor))
        position = position + 1 if correct and position < N_ODORS else 1
    return np.array(rows, dtype=np.int64)


def odor_trajectory(odor: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The noise-free odor latent (..., 2) of odors 1 to 5 at `time` s after its onset, the same in all animals."""
    rise, fall = 1 / (1 + np.exp(-(time - 0.05) / 0.03)), np.exp(-0.5 * (np.clip(time - 0.18, 0, None) / 0.25) ** 2)
    angle = np.pi / 2 - 2 * np.pi * (odor - 1) / N_ODORS - 0.9 * np.clip(time - 0.1, 0, 0.5)
    return (rise * fall)[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)


def _odor_latent(draws: "_Draws", info: np.ndarray, onset: float) -> np.ndarray:
    n = len(info)
    wrong = info[:, 0] == 0
    represented = np.where(wrong & (draws.uniform(n) < 0.5), info[:, 2], info[:, 3])     # the odor that was due
    attention = np.exp(0.3 * draws.normal(n)) * np.where(wrong, 0.5, 1.0)
    delay = onset + 0.02 * draws.normal(n)
    mean = odor_trajectory(represented[:, None], TIME[None] - delay[:, None])            # (trials, 400, 2)
    return attention[:, None, None] * mean + 0.15 * _slow(draws, n, seconds=0.1)


def _state_latent(draws: "_Draws", n_trials: int) -> np.ndarray:
    """y_i(t): half a level of the trial, half a fluctuation of 0.3 s; standard deviation 1."""
    return np.sqrt(0.5) * (draws.normal(n_trials, 1, 2) + _slow(draws, n_trials, seconds=0.3))


def _slow(draws: "_Draws", n_trials: int, seconds: float) -> np.ndarray:
    """An Ornstein-Uhlenbeck process (trials, 400, 2) of unit variance and this time constant."""
    keep = np.exp(-0.01 / seconds)
    noise = draws.normal(BINS, n_trials, 2)
    noise[1:] *= np.sqrt(1 - keep**2)
    for t in range(1, BINS):
        noise[t] += keep * noise[t - 1]
    return noise.transpose(1, 0, 2)


def _kinds(draws: "_Draws", n_units: int) -> np.ndarray:
    """Every kind in its share, in random order."""
    edges = np.round(np.cumsum(list(KINDS.values())) * n_units).astype(int)
    return np.searchsorted(edges, np.arange(n_units), side="right")[np.argsort(draws.uniform(n_units), kind="stable")]


class _Draws:
    """Uniform, normal and Poisson draws made from raw 64-bit numbers."""

    def __init__(self, *seed: int):
        self.bits = np.random.PCG64(np.random.SeedSequence(seed))

    def uniform(self, *shape: int) -> np.ndarray:
        """In (0, 1): 53 bits and a half."""
        raw = self.bits.random_raw(int(np.prod(shape))) >> np.uint64(11)
        return ((raw + 0.5) * 2.0**-53).reshape(shape)

    def normal(self, *shape: int) -> np.ndarray:
        """Box and Muller's transform."""
        u, v = self.uniform(2, *shape)
        return np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)

    def poisson(self, mean: np.ndarray) -> np.ndarray:
        """At most ten, one per 1-ms sample: how many of the first ten points of a Poisson distribution lie below u."""
        u = self.uniform(*mean.shape)
        term = np.exp(-mean)
        below, counts = term.copy(), np.zeros(mean.shape, dtype=np.uint8)
        for k in range(1, 11):
            above = u > below
            if not above.any():
                break
            counts += above
            term = term * mean / k
            below += term
        return counts


def _write_packed(path: Path, array: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(gzip.compress(content.getvalue(), compresslevel=6, mtime=0))
