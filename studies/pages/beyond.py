"""The page `beyond`: pools of exponents between, what a density of the latents generates, and which method to take.

What comes from committed rows: `pools` (simulated rats), `generated` (digits), `Leaders` (all studies). What the page
measures itself, on the models of the digits that ship: `Live`.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mmvm import fit_latent_density, fit_latent_diffusion, paths
from mmvm.data import MultimodalData
from mmvm.model import MultimodalVAE
from mmvm.pretrained import pretrained
from mmvm.study import results
from mmvm.study.figures import METHOD_NAMES, fraction
from studies.pages import learning_rates, translated
from studies.pages.information import with_more_seeds
from studies.polymnist.generation import generation
from studies.polymnist.study import PolyMNIST
from studies.polymnist.variety import READABLE

# what is trained -> exponent -> the method's text; the geometric pool is where all of them begin, the divergence itself
FAMILY = {
    "single draws": {0.0: "mmvm:prior=geometric", 0.25: "mmvm:bound=monte_carlo,exponent=0.25",
                     0.5: "mmvm:bound=monte_carlo,prior=hellinger", 0.75: "mmvm:bound=monte_carlo,exponent=0.75",
                     1.0: "mmvm:bound=monte_carlo"},
    "variational": {0.0: "mmvm:prior=geometric", 0.5: "mmvm:bound=variational,prior=hellinger",
                    1.0: "mmvm:bound=variational"},
    "pairwise": {0.0: "mmvm:prior=geometric", 0.5: "mmvm:prior=hellinger", 1.0: "mmvm"},
    "one Gaussian": {0.0: "mmvm:prior=geometric", 0.5: "mmvm:prior=hellinger,pool=matched", 1.0: "mmvm:pool=matched"},
}
JOINT = {"poe": "PoE", "hellinger": "Hellinger", "hellinger:pool=exact": "Hellinger, drawn from",
         "hellinger:pool=components,bhattacharyya=joint": "Hellinger, all components", "moe": "MoE"}
PEERS = {"jmvae": "JMVAE", "mvae": "MVAE, with bounds of subsets", "mmvae": "MMVAE, Laplace, importance-weighted"}
POOLED = {"mmvm": "MMVM: mixture, pairwise bound (the released code's)",
          "mmvm:bound=variational": "mixture, variational bound",
          "mmvm:bound=monte_carlo": "mixture, single draws (the paper's equation)",
          "mmvm:bound=monte_carlo,exponent=0.75": "exponent 3/4, single draws",
          "mmvm:prior=hellinger": "Hellinger, pairwise bound",
          "mmvm:bound=variational,prior=hellinger": "Hellinger, variational bound",
          "mmvm:bound=monte_carlo,prior=hellinger": "Hellinger, single draws",
          "mmvm:bound=monte_carlo,exponent=0.25": "exponent 1/4, single draws",
          "mmvm:prior=geometric": "geometric, closed form",
          "mmvm:pool=matched": "one Gaussian with the mixture's moments",
          "mmvm:prior=hellinger,pool=matched": "one Gaussian with the Hellinger pool's",
          **{text: f"joint: {name}" for text, name in (JOINT | PEERS).items()}, "independent": "independent VAEs"}
# whether what is trained pulls the more, the further apart the posteriors are, or the less
GROWING = ("mmvm", "mmvm:prior=hellinger", "mmvm:prior=geometric")
FADING = tuple(text for name, members in FAMILY.items() for t, text in members.items() if t and name != "pairwise")
GROUPS = {"grows": GROWING, "fades": tuple(dict.fromkeys(FADING)), "joint posterior": (*JOINT, *PEERS),
          "independent": ("independent",)}
OF_POOLS = ("probe_shared", "transfer", "state_recovery", "squared_error")
GENERATED = ("joint_coherence", "conditional_coherence_1", "conditional_coherence_2", "joint_diversity",
             "joint_distance", "joint_nearest")
STROKES = ("ink", "slant")  # of `factor_spread`
GUIDANCE = 2.0  # of the conditional draws "guided": how much of what sets the conditional apart is added
SAMPLED = {"mixture": "MMVM: Gaussian mixture", "diffusion": "MMVM: latent diffusion",
           "guided": f"MMVM: latent diffusion, guidance {GUIDANCE:g}",
           "own": "MMVM: latents of test tuples", "mmvaeplus": "MMVAE+: its own prior",
           "independent": "independent VAEs: latent diffusion"}
DENSITY_NAMES = {"prior": "its own prior", "mixture": "Gaussian mixture", "diffusion": "diffusion"}


# from rows -----------------------------------------------------------------------------------------------------------

def pools(rows: pd.DataFrame, beta: float) -> pd.DataFrame:
    """One line a method of `POOLED` that has run at `beta` on the rats: seeds, mean and standard deviation
    ("<metric> sd") of `OF_POOLS`. Equal beta for all: each counts its KL terms once."""
    rows = rows[(rows["experiment"] == "hippocampus") & rows["method"].isin(POOLED) & np.isclose(rows["beta"], beta)]
    board = results.scoreboard(rows, ["probe_shared", "state_recovery", "squared_error"])
    transfer = results.scoreboard(rows, ["probe_transfer"], target="cross").rename(
        columns={"probe_transfer": "transfer", "probe_transfer sd": "transfer sd"})
    board = board.merge(transfer[["method", "updates", "transfer", "transfer sd"]]).set_index("method")
    return board.loc[[text for text in POOLED if text in board.index]]


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """`pools` at every beta: columns `group` (of `GROUPS`), method, beta and those of `pools`."""
    of = {text: group for group, texts in GROUPS.items() for text in texts}
    boards = [pools(rows, beta).reset_index().assign(beta=beta) for beta in sorted(rows["beta"].unique())]
    board = pd.concat(boards, ignore_index=True)
    return board.assign(group=board["method"].map(of))


def own_probe(rows: pd.DataFrame) -> pd.DataFrame:
    """The own odor probe of the rats, mean over animals: priors whose pull grows, independent VAEs and "chance", over
    beta; a cell is the values of all seeds."""
    rows = rows[(rows["experiment"] == "hippocampus") & (rows["target"] == "mean") & (rows["source"] == "")]
    texts = (*GROWING, "independent")
    own = rows[(rows["metric"] == "probe") & rows["method"].isin(texts)]
    chance = rows[(rows["metric"] == "probe_chance") & rows["method"].isin(texts)].assign(method="chance")
    cells = pd.concat([own, chance]).groupby(["method", "beta"])["value"].agg(np.array).unstack()
    return cells.loc[[*texts, "chance"]]


def own_probes(rows: pd.DataFrame) -> pd.DataFrame:
    """`own_probe` as a table: mean and standard deviation over seeds, a column a beta."""
    def said(values: Any) -> str:
        if not isinstance(values, np.ndarray):
            return ""
        return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")

    board = own_probe(rows)
    table = board.map(said)
    table.loc["chance"] = [f"{values.mean():.2f}" for values in board.loc["chance"]]
    table.columns = [f"β = {beta:g}" for beta in table.columns]
    return table.rename(index={**POOLED, "chance": "permuted trials"}).rename_axis(index=None)


def update_costs() -> pd.Series:
    """Percent by which an update with each pool takes longer than one with MMVM's pairwise bound, by its text: M = 5,
    D = 512, bfloat16, the last machine's measurement (`python -m benchmarks pools --keep`)."""
    measured = pd.read_csv(paths.REPOSITORY / "benchmarks" / "results.csv", keep_default_na=False)
    own = measured[(measured["benchmark"] == "pools") & (measured["precision"] == "bfloat16")].sort_values("date")
    return 100 * (own.groupby("arm")["value"].last().astype(float) - 1)


def diffusion_seconds() -> pd.Series:
    """Seconds of an update and of 1,000 samples of 50 steps of a latent diffusion: M = 5, D = 512, the default network,
    the last machine's measurement (`python -m benchmarks diffusion --keep`)."""
    measured = pd.read_csv(paths.REPOSITORY / "benchmarks" / "results.csv", keep_default_na=False)
    own = measured[(measured["benchmark"] == "diffusion") & (measured["metric"] == "seconds")].sort_values("date")
    return own.groupby("arm")["value"].last().astype(float)


def pools_table(board: pd.DataFrame) -> pd.DataFrame:
    """As a reader sees it."""
    columns = {"shared probe": ("probe_shared", 2), "transfer": ("transfer", 2),
               "own state": ("state_recovery", 2), "own error": ("squared_error", 4)}
    said = {name: results.with_spread(board, *column).to_numpy() for name, column in columns.items()}
    return pd.DataFrame({"": [POOLED[text] for text in board.index], **said, "seeds": board["seeds"].to_numpy()})


def generated(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a method, beta and density of `generation`'s rows: seeds, and mean and standard deviation
    ("<measure> sd") of `GENERATED`; of strokes, ink and slant, the spread over the data's, and how well the worse of
    them can be read."""
    lines = []
    averages = rows[(rows["source"] == "") & (rows["target"] == "mean")]
    for (method, beta), part in averages.groupby(["method", "beta"]):
        for density in DENSITY_NAMES:
            own = part[part["metric"].str.startswith(f"{density}_")]
            if len(own):
                values = own.assign(metric=own["metric"].str.removeprefix(f"{density}_")).groupby("metric")["value"]
                mean, spread = values.mean(), values.std()
                lines.append({"method": method, "beta": beta, "density": density, "seeds": own["seed"].nunique(),
                              **{name: mean[name] for name in GENERATED},
                              **{f"{name} sd": spread[name] for name in GENERATED},
                              "strokes": np.mean([mean.get(f"joint_spread_{name}", np.nan) for name in STROKES]),
                              "readable": min(mean.get(f"readable_{name}", np.nan) for name in STROKES)})
    board = pd.DataFrame(lines)
    order = {method: i for i, method in enumerate(METHOD_NAMES)}
    return board.sort_values(["method", "beta"], ignore_index=True, kind="stable",
                             key=lambda column: column.map(order) if column.name == "method" else column)


def generated_table(board: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """As a reader sees it; `names` of the lines."""
    heads = ("joint", "given one", "given two", "variety", "distance", "nearest")
    digits = (2, 2, 2, 2, 0, 2)
    table = pd.DataFrame({"": list(names), **{
        head: results.with_spread(board, name, n).to_numpy() for head, name, n in zip(heads, GENERATED, digits)}})
    if "strokes" in board and board["strokes"].notna().any():
        table["strokes"] = board["strokes"].where(board["readable"] > READABLE).map("{:.2f}".format).to_numpy()
    return table.replace("nan", "")


def line_names(board: pd.DataFrame) -> list[str]:
    """What a line of `generated` is, in words."""
    return [METHOD_NAMES.get(line.method, line.method) + (f", β = {line.beta:g}" if line.beta else "")
            + f": {DENSITY_NAMES[line.density]}" for line in board.itertuples()]


class Leaders:
    """Which method is best at what: each where validation samples, with the first seed, have the highest score of that
    very measure, at a beta of the laptop runs or, of rats, at a learning rate and beta of the long ones. Plain methods
    alone."""

    STUDIES = {"polymnist": "digits", "cub": "birds", "mimic-cxr": "X-rays", "hippocampus": "rats"}
    # coherence of pairs of two modalities: a picture from its own latent needs nothing shared
    TARGETS = {"probe": "mean", "coherence": "cross"}
    ALSO = {"own_error": "sum", "state_recovery": "mean"}

    @cached_property
    def boards(self) -> dict[str, dict[str, pd.DataFrame]]:
        """Measure -> study -> by method (the index) beta and rate, where chosen, mean, standard deviation ("<metric>
        sd") and "seeds" of the measure, and means of what else the rows have of `ALSO`. The deviation given for one
        seed is the root mean square of those of all settings with several."""
        return {measure: {study: self._board(study, measure) for study in self.STUDIES} for measure in self.TARGETS}

    def _board(self, study: str, measure: str) -> pd.DataFrame:
        metric, target = self.own(study, measure), self.TARGETS[measure]
        rows, validated = (part[~part["method"].str.contains("[:/]") & (part["method"] != "supervised")]
                           for part in self.rows(study))
        picked = learning_rates.chosen(validated[validated["target"] == target].assign(target="mean"), metric)
        values = learning_rates.at_chosen(rows, picked, metric, target)
        found = picked.set_index("method")[["rate", "beta"]].assign(**{
            metric: values.mean(axis=1), f"{metric} sd": values.std(axis=1), "seeds": values.notna().sum(axis=1)})
        of_all = rows[(rows["metric"] == metric) & (rows["target"] == target) & (rows["source"] == "")]
        variances = of_all.groupby(learning_rates.KEYS)["value"].var()
        found[f"{metric} sd"] = found[f"{metric} sd"].fillna(variances.mean() ** 0.5)
        also = {name: learning_rates.at_chosen(rows, picked, name, where) for name, where in self.ALSO.items()}
        found = found.assign(**{name: part.mean(axis=1) for name, part in also.items() if len(part)})
        return found.dropna(subset=[metric])

    @staticmethod
    def rows(study: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """A study's rows and those that choose, with `rate`."""
        if study == "hippocampus":
            return learning_rates.rats(), learning_rates.rats()
        rows, validated = (part[part["profile"] == "laptop"]
                           for part in (results.read(study), results.validated(study)))
        if study == "polymnist":
            rows = with_more_seeds(rows, results.read("information"))
        return (learning_rates.with_rates(results.with_own_error(rows), learning_rates.LAPTOPS_USUAL),
                learning_rates.with_rates(validated, learning_rates.LAPTOPS_USUAL))

    def best(self, study: str, measure: str) -> tuple[str, float]:
        """The method's name in figures, and its value."""
        column = self.boards[measure][study][self.own(study, measure)]
        return METHOD_NAMES[column.idxmax()], float(column.max())

    def level(self, study: str, measure: str) -> list[str]:
        """The best method and those that lie below it by less than the larger standard deviation over seeds of the two,
        the best first."""
        metric = self.own(study, measure)
        board = self.boards[measure][study].sort_values(metric, ascending=False)
        spread = board[f"{metric} sd"].fillna(0.0)
        near = board[metric].iloc[0] - board[metric] <= np.maximum(spread, spread.iloc[0])
        return list(board.index[near])

    def names(self, measure: str) -> str:
        """The best methods of the studies, each once."""
        return " or ".join(dict.fromkeys(self.best(study, measure)[0] for study in self.STUDIES))

    def said(self, measure: str, digits: int = 2) -> str:
        """The best method of each study, with those that are level with it, its value, and MMVM's; * after one seed."""
        parts = []
        for study, title in self.STUDIES.items():
            board, metric = self.boards[measure][study], self.own(study, measure)
            marks = board["seeds"].eq(1).map({True: "*", False: ""})
            level = self.level(study, measure)
            names = ", ".join(METHOD_NAMES[method] + marks[method] for method in level)
            beside = "" if "mmvm" in level else f" (MMVM {board[metric]['mmvm']:.{digits}f}{marks['mmvm']})"
            parts.append(f"{title} {names} {board[metric].max():.{digits}f}{beside}")
        return "; ".join(parts)

    @staticmethod
    def likelihood() -> pd.Series:
        """The importance-weighted bound on digits in nats by method, highest first, each at the beta where it is
        highest: the beta with the best probe says little about it."""
        rows = results.read("polymnist")
        rows = rows[(rows["profile"] == "laptop") & ~rows["method"].str.contains("[:/]")]
        board = results.scoreboard(rows, ["log_likelihood"]).dropna(subset=["log_likelihood"])
        return board.groupby("method")["log_likelihood"].max().sort_values(ascending=False)

    @staticmethod
    def own(study: str, measure: str) -> str:
        """The metric: the rats' probe is the one that all animals share."""
        return "probe_shared" if (study, measure) == ("hippocampus", "probe") else measure


def hidden_laterals() -> pd.DataFrame:
    """Imputation error of a view in nats where one, two or three laterals in four are hidden in training: a row a
    method, a column a share; X-rays, one seed."""
    rows = results.read("mimic-cxr")
    rows = rows[(rows["profile"] == "missing") & (rows["metric"] == "imputation") & (rows["target"] == "cross")
                & (rows["source"] == "")]
    method, share = (rows["method"].str.split("/lateral_missing=").str[i] for i in (0, 1))
    return rows.assign(method=method, share=share.astype(float)).pivot_table(index="method", columns="share",
                                                                             values="value")


# live ----------------------------------------------------------------------------------------------------------------

@dataclass
class OwnLatents:
    """The latents of test samples, a draw of each posterior, in place of a density: what a density of the latents
    should be like, and no better."""

    model: MultimodalVAE
    data: MultimodalData

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """(M, n, D), of the first n samples."""
        return self.model.encode([x[:n] for x in self.data.modalities.values()]).sample()


@dataclass
class Live:
    """The models of the digits that ship, with densities fitted to their latents; n_train tuples, `updates` of a
    diffusion."""

    n_train: int = 10_000
    updates: int = 1_000
    seed: int = 0

    @cached_property
    def study(self) -> PolyMNIST:
        return PolyMNIST(n_train=self.n_train, n_test=2_000, classifier_epochs=2)

    @cached_property
    def models(self) -> dict[str, MultimodalVAE]:
        return {method: pretrained(f"polymnist/{method}") for method in ("mmvm", "mmvaeplus", "independent")}

    @cached_property
    def train(self) -> MultimodalData:
        return self.study.data("train")

    @cached_property
    def test(self) -> MultimodalData:
        return self.study.data("test")

    @cached_property
    def classifiers(self) -> list[nn.Module]:
        return self.study.classifiers(self.train, self.test)[0]

    @cached_property
    def densities(self) -> dict[str, tuple[str, Any]]:
        """What is sampled from, by its name in `SAMPLED`: the model's name, and a density or None for its own prior."""
        def diffusion(method: str) -> Any:
            return fit_latent_diffusion(self.models[method], self.train, updates=self.updates, width=192, blocks=3,
                                        seed=self.seed)

        plain = diffusion("mmvm")
        guided = copy(plain)
        guided.guidance = GUIDANCE
        return {"mixture": ("mmvm", fit_latent_density(self.models["mmvm"], self.train, 20, seed=self.seed)),
                "diffusion": ("mmvm", plain), "guided": ("mmvm", guided),
                "own": ("mmvm", OwnLatents(self.models["mmvm"], self.test)), "mmvaeplus": ("mmvaeplus", None),
                "independent": ("independent", diffusion("independent"))}

    def joint(self, name: str, n: int = 10) -> dict[str, Tensor]:
        """n joint draws, modality -> (n, 3, 28, 28)."""
        method, density = self.densities[name]
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(self.seed + 2)
            return self.models[method].generate(n, density)

    def held(self, source: str, row: int, name: str | None, n: int = 9) -> dict[str, Tensor]:
        """n draws of all modalities given one picture, test tuple number `row` of modality `source`; without a name
        MMVM's own imputation."""
        picture = self.test.modalities[source][row:row + 1].expand(n, -1, -1, -1)
        method, density = self.densities[name] if name else ("mmvm", None)
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(self.seed + 2)
            return self.models[method].impute({source: picture}, density=density)

    def measured(self, n: int = 500) -> pd.DataFrame:
        """`GENERATED`, means over modalities, of n draws of each density; a line each, as of `generated`."""
        found = {name: generation(self.models[method], density, self.train, self.test, self.classifiers, n, 2_000,
                                  self.seed)
                 for name, (method, density) in self.densities.items()}
        board = pd.DataFrame({name: {measure: float(np.mean(values[measure])) for measure in GENERATED}
                              for name, values in found.items()}).T
        return board.assign(**{f"{measure} sd": np.nan for measure in GENERATED})  # one seed


# beside the pools ----------------------------------------------------------------------------------------------------

def consensus(mean: Sequence[float], deviation: Sequence[float], correlation: float) -> tuple[float, float, np.ndarray]:
    """Mean, standard deviation and the experts' weights (M,) of the consensus of M dependent Gaussian experts in one
    dimension, whose errors have one correlation below 1 for all pairs: with the covariance S of the errors the weights
    are S^-1 1 / (1' S^-1 1), the variance 1 / (1' S^-1 1)."""
    sd = np.asarray(deviation, dtype=float)
    covariance = np.outer(sd, sd) * (correlation + (1 - correlation) * np.eye(len(sd)))
    solved = np.linalg.solve(covariance, np.ones(len(sd)))
    weights = solved / solved.sum()
    return float(weights @ np.asarray(mean, dtype=float)), float(solved.sum() ** -0.5), weights


def advice(leaders: Leaders, hidden: pd.DataFrame) -> pd.DataFrame:
    """The table of the user's questions: what to take and why, by the leaders and by errors with hidden laterals."""
    digits = leaders.boards["coherence"]["polymnist"].sort_values("own_error")
    scored = leaders.likelihood()
    one, another = (METHOD_NAMES[name] for name in scored.index[:2])
    most_hidden = hidden[0.75].sort_values()
    moved = translated.board(results.read("polymnist_grid"))
    answers = {
        "represent a label": (
            f"{leaders.names('probe')}; on translated digits {METHOD_NAMES[moved.index[0][0]]}",
            f"Probe: {leaders.said('probe')}. {_on_translated(moved)}"),
        "represent what is a modality's own": ("independent VAEs", _own(leaders.boards["probe"]["hippocampus"])),
        "represent both": ("MMVM at a small β, with room in its latents",
                           _both()),
        "impute": (
            f"{leaders.names('coherence')}; where a modality's own reconstruction counts as well, see the errors",
            f"Coherence: {leaders.said('coherence')}. Own error in nats and coherence on digits: " + ", ".join(
                f"{METHOD_NAMES[name]} {line['own_error']:.0f} and {line['coherence']:.2f}"
                for name, line in digits.iterrows()) + "."),
        "generate": (
            "<code>fit_latent_diffusion</code> with independent VAEs, by one seed at unequal β; "
            "<code>fit_latent_density</code> with MMVM for draws that agree down to the strokes", _drawn()),
        "score likelihood": (
            f"{one} or {another}, by bounds that may not be equally tight; not MMVM",
            "MMVM has no p(X): its prior has seen the data. Importance-weighted bound on digits, at the best beta for "
            "that, nats: " + ", ".join(f"{METHOD_NAMES[name]} {value:.0f}" for name, value in scored.items())
            + "."),
        "train with much missing": (
            " or ".join(METHOD_NAMES[name] for name in most_hidden.index[:2]) + f", of {len(most_hidden)} tried",
            "Every method takes any subset. Error of imputed X-ray views where three laterals in four are hidden in "
            "training, nats, one seed: " + ", ".join(
                f"{METHOD_NAMES[name]} {value:.0f}" for name, value in most_hidden.items()) + "."),
        "share among many modalities": (
            "MMVM with the pairwise bound or the geometric prior, PoE, MVTCAE",
            "By cost alone: they are linear in M, Hellinger pools are quadratic, MoPoE takes 2<sup>M</sup> - 1 "
            "subsets. With more modalities MMVM agrees less (chapter <code>ablations</code>)."),
    }
    return pd.DataFrame([(f"<b>{question}</b>", take, why) for question, (take, why) in answers.items()],
                        columns=["you want to", "take", "because"])


def _on_translated(board: pd.DataFrame) -> str:
    """The probe of a board of the grid, each method at its best beta of those that ran, which come first."""
    best = board.reset_index().drop_duplicates("method").set_index("method").loc[["mvtcae", "mmvm", "independent"]]
    return "Translated digits, linear probe, one net, each at the best β that ran, mean of three seeds: " + ", ".join(
        f"{METHOD_NAMES[method]} {line['probe']:.2f} (β = {fraction(line['beta'])})"
        for method, line in best.iterrows()) + "."


def _own(rats: pd.DataFrame) -> str:
    kept, shared = ([rats.loc["independent", metric], rats.loc["mmvm", metric], joint_models(rats)[metric].max()]
                    for metric in ("state_recovery", "probe_shared"))
    return ("Independent VAEs, MMVM and the best joint model on rats, where validation trials find the odor best: R² "
            f"of an animal's own state {kept[0]:.2f}, {kept[1]:.2f}, {kept[2]:.2f}; shared probe {shared[0]:.2f}, "
            f"{shared[1]:.2f}, {shared[2]:.2f}.")


def _both() -> str:
    parts = []
    for latent, words in ((2, "Two numbers a latent"), (4, "Four")):
        found = learning_rates.rats_at_best(latent, learning_rates.BOTH)
        own = {name: " and ".join(f"{found.loc[name, metric]:.2f} ± {found.loc[name, f'{metric} sd']:.2f}"
                                  for metric in learning_rates.BOTH) for name in ("mmvm", "independent")}
        joint = joint_models(found[~found.index.str.contains(":")])
        shared, state = (f"{joint[metric].min():.2f} to {joint[metric].max():.2f}" for metric in learning_rates.BOTH)
        parts.append(f"{words}: MMVM {own['mmvm']} (β {found.loc['mmvm', 'beta']:g}), independent VAEs "
                     f"{own['independent']}, joint models {shared} and {state}.")
    short = pools(results.read("pools"), 1e-4)
    mvae, mmvm = (" and ".join(f"{short.loc[name, metric]:.2f}" for metric in learning_rates.BOTH)
                  for name in ("mvae", "mmvm"))
    return ("Rats, shared probe and R² of the own state, three folds, each method where validation windows have the "
            f"highest sum of both. {' '.join(parts)} MVAE was run shorter, with two, only: {mvae}, MMVM so {mmvm}.")


def _drawn() -> str:
    whole = generated(results.read("generation")).query("density == 'diffusion'").set_index("method")
    said = [f"{100 * whole.loc[name, 'joint_coherence']:.0f} % with {words} (β = {fraction(whole.loc[name, 'beta'])})"
            for name, words in (("independent", "independent VAEs"), ("mmvm", "MMVM"))]
    return (f"One digit in {said[0]} and {said[1]} of a diffusion's draws, whole runs of one seed; of the models that "
            "ship β is 1/16 and 4. Equal β was not run, and of other joint models' latents nothing is judged.")


def joint_models(board: pd.DataFrame) -> pd.DataFrame:
    """The lines of a board (index: method) of methods with one posterior for all modalities."""
    return board.drop(index=["mmvm", "independent"])
