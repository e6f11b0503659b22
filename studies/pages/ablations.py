"""The page `ablations`: one factor at a time from one base, each question with its settings and what they change.

A row's key is the hash of its settings, so every `Setting` works out the hashes of its runs and is joined by them;
tests/studies/pages/test_ablations_page.py compares the settings with workflow/lists/ablations.yaml.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmvm.data import MultimodalData
from mmvm.evaluation.encodings import posteriors
from mmvm.gaussian import DiagonalGaussian
from mmvm.model import MultimodalVAE
from mmvm.objectives.gates import COLLAPSED, EXPLODED, Gated
from mmvm.objectives.mixture import mixture_kl
from mmvm.training import watch
from studies.pages.intervals import half_of_students
from studies.polymnist.corrupted import corrupt, corrupted_modality
from studies.polymnist.study import PolyMNIST

PROFILE, TRANSLATED, SEEDS, BASE = "ablations", "ablations_translated", (0, 1, 2), "base"
PIXELS = 3 * 28 * 28                       # numbers of a picture
INDEPENDENT_BETA, LOST_BETA = 0.25, 16.0   # beside the base's 1
LOST = watch.COLLAPSED                     # nats of a modality below which training warns
M1_ALONE = "weights=1+1000+1"
CORRUPTIONS = {"noise": "noise", "swap": "another tuple's", "blank": "black"}


@dataclass(frozen=True)
class Setting:
    """One line of a figure: `name` as it reads there, the settings that differ from the profile, `x` where the factor
    is a number."""

    name: str
    words: tuple[str, ...]
    x: float = float("nan")
    beta: float = 1.0

    def parameters(self, seed: int = 0, profile: str = PROFILE) -> PolyMNIST:
        return base(profile).with_settings((*self.words, f"beta={self.beta:g}", f"seed={seed}"))


@dataclass(frozen=True)
class Question:
    """What a figure answers; `axis` names the factor where it is a number."""

    title: str
    settings: tuple[Setting, ...]
    axis: str = ""
    log: bool = False


def mmvm(name: str, *words: str, options: str = "", x: float = float("nan"), beta: float = 1.0) -> Setting:
    return Setting(name, (f"objective=mmvm{options and ':'}{options}", *words), x, beta)


def independent(name: str, *words: str) -> Setting:
    return Setting(name, ("objective=independent", *words), beta=INDEPENDENT_BETA)


def over(name: str, values: Sequence[float], standard: float) -> tuple[Setting, ...]:
    """A setting for each value of a parameter; the profile's own is the base."""
    return tuple(mmvm(f"{value:g}", *([] if value == standard else [f"{name}={value:g}"]), x=value)
                 for value in sorted([*values, standard]))


def missing_pictures(n_modalities: int = 3) -> tuple[Setting, ...]:
    """Each picture is away with probability p, but one of a tuple stays: a share of p - p^M / M is missing."""
    return tuple(mmvm(f"{p:g}", *([f"missing={p:g}"] if p else []), x=p - p ** n_modalities / n_modalities)
                 for p in (0.0, 0.2, 0.4, 0.6, 0.8))


def corrupted(kind: str) -> tuple[Setting, ...]:
    """The ways to weigh tuples of which one picture lies."""
    def lies(name: str, options: str = "", told: str = "") -> Setting:
        return mmvm(name, f"corrupted={kind}{told and ':'}{told}", options=options)
    return (lies("equal weights"), lies("one expert, m0", "n_experts=1"), lies("one expert, m1", M1_ALONE),
            lies("equal, exact divergence", "bound=monte_carlo"),
            lies("soft gate", "gate=soft"), lies("hard gate", "gate=hard"),
            lies("soft gate on features", "gate=soft,reads=features"),
            lies("hard gate on features", "gate=hard,reads=features"),
            lies("oracle: weight 0", "weights=given", "trust=true"), lies("oracle: missing", told="known=true"),
            independent("independent VAEs", f"corrupted={kind}"))


STANDARD = mmvm("base: pairwise bound")
QUESTIONS = {
    "divergence": Question("divergence, side that learns", (
        STANDARD, mmvm("pairwise, q learns", options="gradient=posterior"),
        mmvm("pairwise, h learns", options="gradient=prior"),
        *(mmvm(name + said, options=f"bound={bound}" + option) for bound, name in (
            ("monte_carlo", "exact"), ("variational", "variational")) for said, option in (
            ("", ""), (", q learns", ",gradient=posterior"), (", h learns", ",gradient=prior"),
            (", without q in h", ",self_component=false"),
            (", without q in h, q learns", ",gradient=posterior,self_component=false"),
            (", without q in h, h learns", ",gradient=prior,self_component=false"))),
        independent("independent VAEs"))),
    "experts": Question("experts, fixed weights", (
        mmvm("base: 3 experts, 1:1:1"), mmvm("2 experts", options="n_experts=2"),
        mmvm("1 expert, m0", options="n_experts=1"), mmvm("1 expert, m1", options=M1_ALONE),
        mmvm("weights 5:3:2", options="weights=5+3+2"), mmvm("weights 8:1:1", options="weights=8+1+1"))),
    "gates": Question("gates", (
        mmvm("base: equal weights"), *(mmvm(f"{mode} gate{said}", options=f"gate={mode}{option}")
                                       for mode in ("soft", "hard", "gumbel")
                                       for said, option in (("", ""), (", balanced", ",load_balance=1"))),
        mmvm("soft gate on features", options="gate=soft,reads=features"))),
    **{f"corrupted-{kind}": Question(f"one of each tuple: {said}", corrupted(kind))
       for kind, said in CORRUPTIONS.items()},
    "alpha": Question("alpha, beta from 0", (
        mmvm("base: alpha 0"), mmvm("alpha 0.1", options="alpha=0.1"), mmvm("alpha 0.5", options="alpha=0.5"),
        mmvm("alpha from 1 to 0", options="alpha_updates=800"), mmvm("alpha 0, beta 0.5", beta=0.5),
        mmvm("beta from 0 to 1", "optimizer=adam:beta_updates=800"))),
    "latent_dim": Question("latent size", over("latent_dim", (8, 16, 64, 128, 512), 32), "latent dimensions D", True),
    "likelihood_scale": Question("likelihood scale", over("likelihood_scale", (0.25, 0.5, 1.5), 0.75),
                                 "scale of the Laplace likelihood", True),
    "n_modalities": Question("modalities", over("n_modalities", (2, 4, 5), 3), "modalities M"),
    "missing": Question("missing pictures", missing_pictures(),
                        "share of pictures missing in training"),
    "size": Question("networks, batches, tuples", (
        mmvm("base: 32 channels, batch 64"),
        *(mmvm(f"{n} channels", f"network=conv:channels={n}") for n in (8, 64)),
        *(mmvm(f"batch {n}, {updates:,} updates", f"batch_size={n}")
          for n, updates in ((32, 3_750), (128, 936), (256, 468))),
        *(mmvm(f"{n:,} tuples, {epochs} epochs", f"n_train={n}", f"epochs={epochs}")
          for n, epochs in ((5_000, 24), (20_000, 6))))),
    "provoked": Question("provoked failures", (
        mmvm("lost information: beta 16", beta=LOST_BETA),
        mmvm("lost information: learning rate 0.02", "learning_rate=0.02", options="gate=soft"),
        mmvm("collapsed gate: hard", options="gate=hard"),
        mmvm("exploding weights: gate on noise", "corrupted=noise", options="gate=hard,reads=features"))),
}
# what of the largest effects is asked of translated digits too
ON_TRANSLATED = Question("translated digits", (
    STANDARD, mmvm("exact", options="bound=monte_carlo"),
    mmvm("variational, without q in h", options="bound=variational,self_component=false"),
    mmvm("pairwise, q learns", options="gradient=posterior"), mmvm("pairwise, h learns", options="gradient=prior"),
    independent("independent VAEs"),
    mmvm("one of each another tuple's", "corrupted=swap"),
    mmvm("the same, known and missing", "corrupted=swap:known=true")))
# of which pictures that lie would otherwise be asked for the digit too
HONEST = {"probe": "probe_clean", "coherence": "coherence_clean"}
MEASURES = {"probe": "digit probe", "coherence": "cross coherence", "error": "pixel error",
            "nats": "rate (nats)"}
SHARES = ("probe", "coherence")
GATE = ("used", "chosen", "margin")


@functools.cache
def base(profile: str = PROFILE) -> PolyMNIST:
    return PolyMNIST.from_profile(profile)


def run_hashes(settings: Sequence[Setting],
               profile: str = PROFILE) -> dict[str, tuple[tuple[tuple[str, ...], float], int]]:
    """Hash -> what was set (words and beta) and the seed, of every run of these settings."""
    return {one.parameters(seed, profile).run_hash(): ((one.words, one.beta), seed)
            for one in settings for seed in SEEDS}


def measured(rows: pd.DataFrame, profile: str = PROFILE) -> pd.DataFrame:
    """A line per setting and seed of a profile that has rows: `words`, `beta`, `seed`, what `MEASURES` names, `least`,
    of a gate `used`, `chosen` and `margin` (nats), and, where one picture lies, `lies`.

    probe      accuracy, mean over modalities; of corrupted tuples on the honest pictures
    coherence  the same of pictures made from another modality's latent
    error      mean absolute error of a pixel of 0 to 255, from its own latent: comparable whatever the likelihood
    nats       `latent_information` of a modality, mean
    least      the same of the modality that has least
    used       weight of the modality that has most, mean over test tuples; of a hard gate its share of first places
    chosen     the modality that has the largest weight most often
    lies       share of the test tuples in which the picture that lies has the largest weight
    """
    known = run_hashes([one for question in QUESTIONS.values() for one in question.settings], profile)
    lines = []
    for run, part in rows[(rows["profile"] == profile) & (rows["source"] == "")].groupby("run"):
        if run not in known:
            continue
        (words, beta), seed = known[run]
        value = part.set_index(["metric", "target"])["value"]
        p = Setting("", words, beta=beta).parameters(profile=profile)
        lies = p.corrupted != "none"
        error = value["reconstruction", "sum"] / (p.n_modalities * PIXELS) - np.log(2 * p.likelihood_scale)
        lines.append({"words": words, "beta": beta, "seed": seed,
                      "probe": value[HONEST["probe"] if lies else "probe", "mean"],
                      "coherence": value[HONEST["coherence"] if lies else "coherence", "cross"],
                      "error": 255 * p.likelihood_scale * error,
                      "nats": value["latent_information", "mean"], "least": value["latent_information"].min(),
                      **of_gate(value, "gate=hard" in p.objective),
                      "lies": value.get(("gate_first_lies", "mean"), np.nan)})
    columns = ["words", "beta", "seed", *MEASURES, "least", *GATE, "lies"]
    return pd.DataFrame(lines, columns=columns).sort_values("seed", ignore_index=True, kind="stable")


def of_gate(value: pd.Series, hard: bool) -> dict[str, object]:
    """`used`, `chosen` and `margin` of a run's values, indexed by metric and target; a gate's training warns of the
    same numbers (`mmvm.objectives.gates`)."""
    if ("gate_margin", "mean") not in value:
        return dict(zip(GATE, (np.nan, "", np.nan)))
    first = value["gate_first"]
    return {"used": (first if hard else value["gate_weight"]).max(), "chosen": first.idxmax(),
            "margin": value["gate_margin", "mean"]}


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of `measured` of those seeds that every setting of it has: while runs come in, means over different
    seeds would be compared otherwise."""
    settings = table[["words", "beta"]].drop_duplicates()
    having = table.groupby("seed").size()
    return table[table["seed"].isin(having.index[having == len(settings)])].reset_index(drop=True)


def same(one: Setting, other: Setting) -> bool:
    """Whether both name the same runs."""
    return (one.words, one.beta) == (other.words, other.beta)


def of(table: pd.DataFrame, setting: Setting) -> pd.DataFrame:
    """The lines of `measured` of one setting, indexed by seed."""
    return table[(table["words"] == setting.words) & (table["beta"] == setting.beta)].set_index("seed")


def effect(table: pd.DataFrame, setting: Setting, measure: str,
           against: Setting = STANDARD) -> tuple[float, float, float]:
    """Mean difference to `against` over the seeds that both have, and the ends of its 95 % interval. NaN without a
    common seed; NaN ends for one seed, but of a share.

    The interval has two parts, whose squares add up: what seeds change, by Student's t over the seeds' differences;
    and, for a share, what other test tuples would, by the normal approximation, as if the two runs had different ones
    and all M modalities were right or wrong together: both widen it. All seeds share the test tuples, so more seeds do
    not narrow that part.
    """
    pair = pd.concat([of(table, setting)[measure], of(table, against)[measure]], axis=1).dropna().to_numpy()
    if not len(pair):
        return float("nan"), float("nan"), float("nan")
    n, differences = len(pair), pair[:, 0] - pair[:, 1]
    if n == 1 and measure not in SHARES:
        return float(differences[0]), float("nan"), float("nan")
    of_seeds = half_of_students(differences) if n > 1 else 0.0
    p = pair.mean(0).clip(0, 1)
    of_tuples = 1.96 * (p * (1 - p)).sum() ** 0.5 / base().n_test ** 0.5 if measure in SHARES else 0.0
    mean, half = differences.mean(), np.hypot(of_seeds, of_tuples)
    return float(mean), float(mean - half), float(mean + half)


def largest(table: pd.DataFrame, n: int = 12) -> pd.DataFrame:
    """The `n` settings that change cross coherence most, the largest first: question, name, and mean and interval of
    `effect` for coherence and probe. What is corrupted is compared with equal weights on equally corrupted tuples, and
    what was provoked to fail is left out."""
    lines = []
    for key, question in QUESTIONS.items():
        against = question.settings[0] if key.startswith("corrupted") else STANDARD
        for setting in question.settings:
            if key != "provoked" and not same(setting, against) and len(of(table, setting)):
                line = {"question": key, "name": setting.name, "seeds": len(of(table, setting))}
                for measure in SHARES:
                    found = effect(table, setting, measure, against)
                    line |= dict(zip((measure, f"{measure} low", f"{measure} high"), found))
                lines.append(line)
    found = pd.DataFrame(lines).dropna()
    return found.sort_values("coherence", key=np.abs, ascending=False, ignore_index=True).head(n)


def table_of_largest(table: pd.DataFrame, n: int = 12) -> pd.DataFrame:
    """As a reader sees it: question, setting, and changes with their intervals."""
    found = largest(table, n)
    changes = {}
    for measure in SHARES[::-1]:
        ends = zip(found[measure], found[f"{measure} low"], found[f"{measure} high"])
        changes[MEASURES[measure]] = [f"{mean:+.2f} ({low:.2f} to {high:.2f})".replace("-", "−")
                                      for mean, low, high in ends]
    return pd.DataFrame({"question": found["question"].map(lambda key: QUESTIONS[key].title), "setting": found["name"],
                         **changes, "seeds": found["seeds"]})


def following(table: pd.DataFrame) -> pd.DataFrame:
    """Share of the test tuples in which a gate's largest weight is the liar's, mean over seeds: a row per gate, a
    column per kind of lie."""
    gates = [one.name for one in QUESTIONS["corrupted-swap"].settings if "gate" in one.name]
    return pd.DataFrame({kind: [mean_of(table, f"corrupted-{kind}", name, "lies") for name in gates]
                         for kind in CORRUPTIONS}, index=gates)


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """What was provoked and the number that should show it: its lowest and highest value over the runs, the threshold,
    whether the alarm is `above` it or below, how many runs there are and how many pass it. The thresholds are those
    at which training warns."""
    lost, fast, hard, exploded = (of(table, one) for one in QUESTIONS["provoked"].settings)
    found = []
    for name, diagnostic, values, threshold, above in (
            ("beta 16", "nats of the least latent", lost["least"], LOST, False),
            ("learning rate 0.02", "nats of the least latent", fast["least"], LOST, False),
            ("hard gate", "share of the most used expert", hard["used"], COLLAPSED, True),
            ("hard gate on features, noise", "margin of log-weights, nats", exploded["margin"], EXPLODED, True)):
        passed = values > threshold if above else values < threshold
        found.append({"provoked by": name, "diagnostic": diagnostic, "low": values.min(), "high": values.max(),
                      "threshold": threshold, "above": above, "runs": len(values), "caught": int(passed.sum())})
    return pd.DataFrame(found)


def failures_table(table: pd.DataFrame) -> pd.DataFrame:
    """As a reader sees it."""
    found = failures(table)
    ends = [sorted({f"{low:.3g}", f"{high:.3g}"}, key=float) for low, high in zip(found["low"], found["high"])]
    return pd.DataFrame({"provoked by": found["provoked by"], "number": found["diagnostic"],
                         "reads": [" to ".join(end) for end in ends],
                         "alarm": [f"{'above' if above else 'below'} {limit:.3g}"
                                   for above, limit in zip(found["above"], found["threshold"])],
                         "caught": [f"{caught} of {runs}" for caught, runs in zip(found["caught"], found["runs"])]})


def lost_modalities(table: pd.DataFrame, question: str) -> str:
    """In words: which settings of a question have runs in which a modality's latent holds less than `LOST` nats."""
    said = []
    for setting in QUESTIONS[question].settings:
        own = of(table, setting)["least"]
        if n := int((own < LOST).sum()):
            said.append(f"{setting.name} ({n} of {len(own)})")
    return ", ".join(said) if said else "none"


# why a gate does not find the picture that lies -----------------------------------------------------------------------

def pull(q: DiagonalGaussian, bound: str, seed: int = 0) -> Tensor:
    """d R / d score_m of a gate that still weighs all alike, (M, B), nats: where it is positive, an update takes weight
    from that modality."""
    scores = torch.zeros(q.mean.shape[:2], requires_grad=True)
    z = q.mean + q.std * torch.randn(q.mean.shape, generator=torch.Generator().manual_seed(seed))
    return torch.autograd.grad(mixture_kl(bound, q, z, scores.log_softmax(0)).sum(), scores)[0]


def encoded(model: MultimodalVAE, data: MultimodalData, kind: str, seed: int) -> DiagonalGaussian:
    """Posteriors (M, N, D) of honest tuples after one picture of each has been made to lie."""
    q = posteriors(model, corrupt(data, kind, seed))[0]
    return DiagonalGaussian(q.mean.float(), q.logvar.float())


def liars(data: MultimodalData, seed: int) -> Tensor:
    """Which modality of each tuple lies then, (N,)."""
    return torch.from_numpy(corrupted_modality(data, seed))


def pulls(model: MultimodalVAE, data: MultimodalData, seed: int = 0) -> pd.DataFrame:
    """`pull` on tuples of which one picture lies: kind, bound, whether the modality lies (bool), its `nats`, one line a
    tuple and modality. `data` are honest tuples."""
    lies = liars(data, seed) == torch.arange(len(data.specs))[:, None]
    parts = []
    for kind in CORRUPTIONS:
        q = encoded(model, data, kind, seed)
        for bound in ("pairwise", "monte_carlo"):
            found = pull(q, bound, seed)
            parts.append(pd.DataFrame({"kind": kind, "bound": bound, "lies": lies.flatten().numpy(),
                                       "nats": found.flatten().numpy()}))
    return pd.concat(parts, ignore_index=True)


def first_by_loss(pulled: pd.DataFrame, n_modalities: int) -> pd.DataFrame:
    """Share of the tuples in which the picture that lies is the one that gains weight fastest, by kind and bound; 1 / M
    is chance. `pulled` is that of `pulls`."""
    shares = []
    for (kind, bound), part in pulled.groupby(["kind", "bound"], sort=False):
        nats = part["nats"].to_numpy().reshape(n_modalities, -1)
        lies = part["lies"].to_numpy().reshape(n_modalities, -1)
        shares.append({"kind": kind, "bound": bound, "share": float(lies[nats.argmin(0), range(lies.shape[1])].mean())})
    return pd.DataFrame(shares).set_index(["kind", "bound"])["share"].unstack("bound")


def lone_gate(model: MultimodalVAE, train: MultimodalData, test: MultimodalData, kind: str, seed: int = 0,
              updates: int = 600, batch_size: int = 128) -> Tensor:
    """Weights (M, N) on the test tuples of a soft gate that learns alone, by the pairwise bound, from the posteriors of
    a model that stands still."""
    q, asked = (encoded(model, data, kind, seed) for data in (train, test))
    everything = torch.ones(q.mean.shape[:2], dtype=torch.bool)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        gate = Gated(q.mean.shape[-1])
        optimizer = torch.optim.Adam(gate.parameters(), 1e-3)
        for step in range(updates):
            batch = q[:, torch.randint(q.mean.shape[1], (batch_size,))]
            log_weights = gate.log_probabilities(batch, everything[:, :batch_size])
            optimizer.zero_grad()
            gate.mixture_kl("pairwise", batch, batch.mean, log_weights, step).sum(0).mean().backward()
            optimizer.step()
    with torch.no_grad():
        return gate.log_probabilities(asked, torch.ones(asked.mean.shape[:2], dtype=torch.bool)).exp()


def first_by_gate(model: MultimodalVAE, train: MultimodalData, test: MultimodalData, seed: int = 0) -> pd.Series:
    """By kind of lie: share of the test tuples in which `lone_gate` gives the picture that lies the most weight."""
    which = liars(test, seed)
    return pd.Series({kind: float((lone_gate(model, train, test, kind, seed).argmax(0) == which).double().mean())
                      for kind in CORRUPTIONS})


def honest_tuples(split: str, n: int) -> MultimodalData:
    """Tuples as the base has them."""
    return replace(base(), n_train=n, n_test=n).data(split)


# words ----------------------------------------------------------------------------------------------------------------

def named(question: str, name: str) -> Setting:
    """The setting of a question that figures call `name`. Raises `KeyError` where there is none."""
    return {setting.name: setting for setting in QUESTIONS[question].settings}[name]


def coherence_among(rows: pd.DataFrame, setting: Setting, n_modalities: int) -> float:
    """Cross coherence of the pairs within the first `n_modalities`, mean over pairs and seeds."""
    names = [f"m{m}" for m in range(n_modalities)]
    own = rows[rows["run"].isin(list(run_hashes([setting]))) & (rows["metric"] == "coherence")
               & rows["source"].isin(names) & rows["target"].isin(names) & (rows["source"] != rows["target"])]
    return float(own["value"].mean())


def mean_of(table: pd.DataFrame, question: str, name: str, measure: str) -> float:
    return float(of(table, named(question, name))[measure].mean())


def translated_table(table: pd.DataFrame) -> pd.DataFrame:
    """The settings of `ON_TRANSLATED` that have rows, as a reader sees them."""
    lines = [(setting.name, of(table, setting)) for setting in ON_TRANSLATED.settings]
    return pd.DataFrame([{"": name, **{label: f"{own[measure].mean():.{2 if measure in SHARES else 1}f}"
                                       for measure, label in MEASURES.items()}} for name, own in lines if len(own)])
