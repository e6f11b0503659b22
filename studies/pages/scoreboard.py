"""The scoreboard: every number that the paper states beside ours, with a state that a rule gives.

`reproduced` the same data, measure and test rows, and a difference within the sum of the spreads and of the error of
reading; `not reproduced` the same, and a greater difference; `not comparable` all else, with the reason. Of orderings
the same words say whether ours is the paper's, and `undecided` where the gap's 95 % interval over seeds holds 0; these
are looked at on other data too, and say so.

The released code counts the KL of a joint model once per modality, ours once: a beta that the paper states for one is
M times as large here (`Rows.our_beta`).
"""

import functools
import math
import shlex
from dataclasses import dataclass, field
from html import escape

import matplotlib.pyplot as plt
import pandas as pd

from mmvm import paths
from mmvm.study import STUDIES, Study, results
from mmvm.study.figures import INK, METHOD_COLOURS, METHOD_MARKERS, METHOD_NAMES, WIDTH, in_order
from mmvm.training import PREFIX
from studies.pages.intervals import half_of_welchs

PAPER = paths.REPOSITORY / "data" / "reference" / "paper.csv"
STATES = ("reproduced", "not reproduced", "undecided", "not comparable")
READING = {"nats": 50.0, "FID": 5.0}  # of a number read off a figure; of shares and the like:
READING_ELSEWHERE = 0.01


@dataclass(frozen=True)
class Ours:
    """Where the numbers of a data set are: the chapter (also name of its rows), the profile of the runs ("": none) and
    what sets its data apart from the paper's, the number of modalities, and measure -> our metric, its target, what
    sets it apart."""

    title: str
    profile: str = ""
    apart: str = ""
    n_modalities: int = 1
    measures: dict[str, tuple[str, str, str]] = field(default_factory=dict)


DATA = {
    "polymnist": Ours("PolyMNIST", "laptop", "digits in place, other photos", 3, {
        "reconstruction": ("reconstruction", "sum", ""), "probe": ("probe", "mean", ""),
        "coherence": ("coherence", "mean", ""), "classifier_accuracy": ("classifier_accuracy", "mean", "")}),
    "celeba": Ours("CelebA"),
    "cub": Ours("CUB", "laptop", "painted birds, no photographs", 2, {
        "reconstruction": ("reconstruction_weighted", "mean", "padding left out"),
        "probe": ("probe_auroc_hard", "mean", ""), "coherence": ("coherence_auroc_hard", "mean", "")}),
    "hippocampus": Ours("Hippocampus", "laptop", "simulated rats, a larger learning rate", 5, {
        "reconstruction": ("squared_error", "mean", "other trials than those trained on"),
        "probe": ("probe", "mean", "other trials than those trained on"),
        "coherence": ("coherence", "mean", "other trials than those trained on")}),
    "mimic-cxr": Ours("MIMIC-CXR", "laptop", "phantoms, no patients", 2, {
        "auroc": ("auroc", "", "forests of 30 trees"), "probe": ("probe", "mean", "forests of 30 trees"),
        "reconstruction": ("reconstruction", "sum", "64 x 64 pixels")}),
    "not named": Ours("Not named"),
}
NO_RUN = {"celeba": "not part of this edition", "not named": "the paper does not name the data",
          "fid": "FID needs weights that are not shipped"}


@dataclass(frozen=True)
class Claim:
    """An ordering in the paper: in `measure` each of `above` is higher than each of `below`, at `beta` or, where that
    is "best", each at its own best."""

    dataset: str
    words: str
    measure: str
    above: tuple[str, ...]
    below: tuple[str, ...]
    beta: str = "best"
    view: str = ""
    label: str = ""


JOINT = ("avg", "poe", "moe", "mopoe", "mmvaeplus")
OTHERS = ("independent", *JOINT)
OF_MIMIC = ("independent", "avg", "poe", "moe", "mopoe")
CLAIMS = (
    Claim("polymnist", "MMVM has the highest probe of all methods", "probe", ("mmvm",), OTHERS),
    Claim("polymnist", "MMVM is the most coherent of all methods", "coherence", ("mmvm",), OTHERS),
    Claim("polymnist", "At beta 1 every joint model has a higher error than MMVM", "reconstruction", JOINT, ("mmvm",),
          "1"),
    Claim("polymnist", "At beta 1 MMVM has a higher error than independent VAEs", "reconstruction", ("mmvm",),
          ("independent",), "1"),
    Claim("polymnist", "At beta 1 MoE has the highest error", "reconstruction", ("moe",),
          ("independent", "avg", "poe", "mopoe", "mmvaeplus", "mmvm"), "1"),
    Claim("polymnist", "At beta 1 independent VAEs and MMVM have the lowest FID", "fid", JOINT, ("independent", "mmvm"),
          "1"),
    Claim("celeba", "At beta 1 every joint model but AVG and PoE has a higher error than MMVM", "reconstruction",
          ("moe", "mopoe", "mmvaeplus"), ("mmvm",), "1"),
    Claim("celeba", "At beta 1 MMVM has the highest probe", "probe", ("mmvm",), OTHERS, "1"),
    Claim("celeba", "At beta 1 MoE and MoPoE are more coherent than MMVM", "coherence", ("moe", "mopoe"), ("mmvm",),
          "1"),
    Claim("cub", "At beta 1 every joint model has a higher error than MMVM", "reconstruction", JOINT, ("mmvm",), "1"),
    Claim("cub", "At beta 1 MoE and MoPoE are more coherent than MMVM", "coherence", ("moe", "mopoe"), ("mmvm",), "1"),
    Claim("cub", "At beta 1 MMVM is more coherent than independent VAEs", "coherence", ("mmvm",), ("independent",),
          "1"),
    Claim("cub", "At beta 1 MMVM's probe is above those of AVG, PoE and independent VAEs", "probe", ("mmvm",),
          ("avg", "poe", "independent"), "1"),
    Claim("hippocampus", "MMVM, MoE and MoPoE have higher probes than independent VAEs", "probe",
          ("mmvm", "moe", "mopoe"), ("independent",)),
    Claim("hippocampus", "AVG and PoE have the lowest probes", "probe", ("mmvm", "moe", "mopoe", "independent"),
          ("avg", "poe")),
    Claim("hippocampus", "MMVM is the most coherent of all methods", "coherence", ("mmvm",),
          ("independent", "avg", "poe", "moe", "mopoe")),
    *(Claim("mimic-cxr", f"MMVM has the highest AUROC of the methods without labels, {view}", "auroc", ("mmvm",),
            OF_MIMIC, "", key, "All") for view, key in (("mean of both views", "both"), ("frontal view", "frontal"),
                                                       ("lateral view", "lateral"))),
    Claim("mimic-cxr", "MMVM has a higher AUROC than the supervised reference, mean of both views", "auroc", ("mmvm",),
          ("supervised",), "", "both", "All"),
    Claim("mimic-cxr", "The supervised reference names pneumonia better than MMVM, mean of both views", "auroc",
          ("supervised",), ("mmvm",), "", "both", "Pneumonia"),
)


def paper() -> pd.DataFrame:
    """The paper's numbers, one a row: id, source, dataset, method, beta ("best": highest over beta; empty: not
    stated), measure, view, label, unit, value, spread (NaN: not stated), kind (exact | read | claimed), note."""
    text = pd.read_csv(PAPER, dtype=str, keep_default_na=False)
    return text.assign(value=text["value"].astype(float), spread=pd.to_numeric(text["spread"], errors="coerce"))


class Rows:
    """The committed rows that the scoreboard needs, read once."""

    def __init__(self) -> None:
        self.tables = {}
        for name, ours in DATA.items():
            if ours.profile:
                metrics = {metric for metric, *_ in ours.measures.values()}
                table = results.read(name)
                self.tables[name] = table[(table["profile"] == ours.profile) & table["metric"].isin(metrics)]
        self._boards: dict[tuple, pd.DataFrame] = {}
        self._best: dict[tuple, float | None] = {}
        self._runs: dict[str, dict] = {}

    def board(self, dataset: str, measure: str, view: str = "", label: str = "") -> pd.DataFrame:
        """Our rows of a measure: one a run, columns of the rows."""
        key = (dataset, measure, view, label)
        if key not in self._boards:
            self._boards[key] = self._board(*key)
        return self._boards[key]

    def _board(self, dataset: str, measure: str, view: str, label: str) -> pd.DataFrame:
        table, ours = self.tables[dataset], DATA[dataset]
        if measure not in ours.measures:
            return table.iloc[:0]
        metric, target, _ = ours.measures[measure]
        rows = table[table["metric"] == metric]
        if not view:
            rows = rows[(rows["source"] == "") & (rows["target"] == target)]
            return rows if measure != "classifier_accuracy" else rows.assign(method="classifier")
        # of a view the mean over labels is a row of its own; both views are the mean of the two
        views = ["frontal", "lateral"] if view == "both" else [view]
        rows = rows[(rows["source"] == "") & rows["target"].isin(views)] if label == "All" else \
            rows[rows["source"].isin(views) & (rows["target"] == label)]
        return rows.assign(value=rows.groupby("run")["value"].transform("mean")).drop_duplicates("run")

    def best_beta(self, dataset: str, method: str, measure: str) -> float | None:
        """Where validation samples, or where there are none the lowest seed's test samples, have the highest probe, or
        coherence if that is the measure; None without a run."""
        by = measure if measure == "coherence" else "probe"
        key = (dataset, by)
        if key not in self._best:
            rows = self.board(*key)
            rows = rows[~rows["method"].str.contains("[/:]")]  # variants, of which the paper has none
            chose = results.validated(dataset)
            if chose is not None:
                metric, target, _ = DATA[dataset].measures[by]
                chose = chose[(chose["metric"] == PREFIX + metric) & (chose["source"] == "")
                              & (chose["target"] == target)].assign(metric=by, target="mean")
            rows = rows.assign(metric=by, source="", target="mean")
            best = results.at_best_beta(rows, [by], by=by, validated=chose) if len(rows) else rows
            self._best[key] = dict(zip(best["method"], best["beta"]))
        return self._best[key].get(method)

    def our_beta(self, dataset: str, method: str, measure: str, beta: str, known: pd.Series) -> float | None:
        """Which of the `known` betas of a method stands beside the paper's: the best one where that is meant or none is
        stated, the same one, or of a joint model the nearest to M times the paper's on a logarithmic scale, the smaller
        of two as near; None where that is off by more than a factor of 2."""
        if beta in ("best", ""):
            return self.best_beta(dataset, method, measure)
        if method not in JOINT:
            return float(beta)
        wanted = float(beta) * DATA[dataset].n_modalities
        off, nearest = min((abs(math.log(value / wanted)), value) for value in sorted(set(known)))
        return nearest if off <= math.log(2) + 1e-9 else None

    def find(self, dataset: str, method: str, measure: str, beta: str, view: str = "", label: str = "") -> pd.DataFrame:
        """Our runs behind a number of the paper."""
        if dataset not in self.tables:
            return pd.DataFrame()
        rows = self.board(dataset, measure, view, label)
        rows = rows[rows["method"] == method]
        if method != "classifier" and len(rows):
            rows = rows[rows["beta"] == self.our_beta(dataset, method, measure, beta, rows["beta"])]
            if beta in ("best", "") and results.validated(dataset) is None and rows["seed"].nunique() > 1:
                rows = rows[rows["seed"] > rows["seed"].min()]  # whose test samples have chosen beta
        return rows[rows["updates"] == rows["updates"].max()]

    def made(self, dataset: str, run: str) -> dict:
        """Of a run: its beta, commit, command, and whether today's parameters name it as the row does."""
        if run not in self._runs:
            row = self.tables[dataset][self.tables[dataset]["run"] == run].iloc[0]
            self._runs[run] = {"our beta": row["beta"], "commit": row["commit"], "run": run, "command": command(row),
                               "same hash": names_the_run(row)}
        return self._runs[run]


@functools.cache
def profile_of(experiment: str, profile: str) -> Study:
    return STUDIES[experiment].from_profile(profile)


def settings(row: pd.Series) -> list[str]:
    """What turns the profile of a row into its run: name=value."""
    profile = profile_of(row["experiment"], row["profile"])
    wanted = {"supervised": True} if row["method"] == "supervised" else {"objective": row["method"]}
    wanted |= {"beta": row["beta"], "epochs": row["epochs"], "seed": row["seed"]}
    return [f"{name}={str(value).lower() if isinstance(value, bool) else f'{value:g}' if name == 'beta' else value}"
            for name, value in wanted.items() if value != getattr(profile, name)]


def command(row: pd.Series) -> str:
    """The command that makes a row's run."""
    parts = ["python", "-m", "mmvm", "train", row["experiment"], "--profile", row["profile"]]
    return shlex.join([*parts, *(part for text in settings(row) for part in ("--set", text))])


def names_the_run(row: pd.Series) -> bool:
    """Whether today's parameters of `command` have the very hash that the row was written with."""
    return profile_of(row["experiment"], row["profile"]).with_settings(settings(row)).run_hash() == row["run"]


def why_not(line: pd.Series) -> str:
    """What keeps a number of the paper from being compared with one of ours; empty: nothing."""
    ours = DATA[line["dataset"]]
    reasons = [ours.apart, ours.measures[line["measure"]][2]]
    return "; ".join([*(reason for reason in reasons if reason),
                      *["its measure is not defined"] * (line["kind"] == "claimed")])


def state_of(line: pd.Series, value: float, spread: float, reasons: str) -> str:
    """The rule of the module's first lines for one number. A spread that is not known counts as none."""
    if reasons or math.isnan(value):
        return "not comparable"
    reading = READING.get(line["unit"], READING_ELSEWHERE) if line["kind"] == "read" else 0.0
    known = sum(part for part in (line["spread"], spread) if not math.isnan(part))
    return "reproduced" if abs(line["value"] - value) <= known + reading else "not reproduced"


def compare(rows: Rows | None = None, numbers: pd.DataFrame | None = None) -> pd.DataFrame:
    """The scoreboard: the lines of `paper()`, none left out, with ours, our spread, seeds, profile, date, run, command
    and a state with its reason."""
    rows, numbers = rows or Rows(), paper() if numbers is None else numbers
    found = []
    for _, line in numbers.iterrows():
        own = rows.find(*line[["dataset", "method", "measure", "beta", "view", "label"]])
        if own.empty:
            reason = NO_RUN.get(line["dataset"]) or NO_RUN.get(line["measure"]) or "no run at this beta"
            found.append({"ours": math.nan, "our spread": math.nan, "seeds": 0, "profile": "", "our beta": math.nan,
                          "date": "", "commit": "", "run": "", "data": "", "command": "", "same hash": False,
                          "state": "not comparable", "reason": reason})
            continue
        by_seed = own.groupby("seed")["value"].mean()
        value, spread, first = by_seed.mean(), by_seed.std(), own.sort_values("seed", kind="stable").iloc[0]
        reason = why_not(line)
        made = rows.made(line["dataset"], first["run"])
        if line["method"] == "classifier":  # of all methods' runs alike
            made = {**made, "our beta": math.nan}
        found.append({"ours": value, "our spread": spread, "seeds": len(by_seed), "profile": first["profile"],
                      "date": own["date"].max(), "data": DATA[line["dataset"]].apart,
                      "state": state_of(line, value, spread, reason), "reason": reason, **made})
    return pd.concat([numbers.reset_index(drop=True), pd.DataFrame(found)], axis=1)


def ordering(claim: Claim, value: dict[str, tuple[float, float, int]]) -> tuple[float, float]:
    """A gap between one of `above` and one of `below`, and half of its 95 % interval by Welch's t, of method -> (mean,
    standard deviation, number of seeds): of all pairs the one that is furthest the other way beyond its interval, else
    the one whose interval reaches lowest. The deviation given for one seed is that of three others."""
    pairs = [(value[high][0] - value[low][0], half_of_welchs(value[high][1:], value[low][1:], least=2))
             for high in claim.above for low in claim.below]
    against = [pair for pair in pairs if pair[0] < -pair[1]]
    return min(against) if against else min(pairs, key=lambda pair: pair[0] - pair[1])


def stated(claim: Claim, numbers: pd.DataFrame) -> dict[str, float]:
    """The paper's numbers that a claim orders."""
    own = numbers[(numbers["dataset"] == claim.dataset) & (numbers["measure"] == claim.measure)
                  & (numbers["view"] == claim.view) & (numbers["label"] == claim.label)
                  & (numbers["kind"] != "claimed")]
    if claim.beta == "best":  # the highest that is stated: the best point, or a whole curve
        return own.groupby("method")["value"].max().to_dict()
    return own[own["beta"] == claim.beta].set_index("method")["value"].to_dict()


def claims(rows: Rows | None = None, numbers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Each of `CLAIMS`: the gap in the paper, ours with half of its 95 % interval ("spread"), seeds, and whether our
    rows show the ordering: `undecided` where the interval holds 0, else `reproduced` or `not
    reproduced`. A method with one seed has the widest spread that runs of its profile have in the measure."""
    rows, numbers = rows or Rows(), paper() if numbers is None else numbers
    found = []
    for claim in CLAIMS:
        theirs, _ = ordering(claim, {method: (value, 0.0, 1) for method, value in stated(claim, numbers).items()})
        line = {"dataset": claim.dataset, "claim": claim.words, "paper's gap": theirs}
        own = {method: rows.find(claim.dataset, method, claim.measure, claim.beta, claim.view, claim.label)
               for method in (*claim.above, *claim.below)}
        if any(part.empty for part in own.values()):
            reason = NO_RUN.get(claim.dataset) or NO_RUN.get(claim.measure) or "not all methods have runs"
            found.append({**line, "our gap": math.nan, "spread": math.nan, "seeds": 0, "state": "not comparable",
                          "reason": reason})
            continue
        by_seed = {method: part.groupby("seed")["value"].mean() for method, part in own.items()}
        seeds = min(map(len, by_seed.values()))
        # what one seed may be off is not known: as much as the runs with several differ at most
        board = rows.board(claim.dataset, claim.measure, claim.view, claim.label)
        widest = board.groupby(["method", "beta", "updates"])["value"].std().max()
        gap, spread = ordering(claim, {method: (part.mean(), part.std() if len(part) > 1 else widest, len(part))
                                       for method, part in by_seed.items()})
        ours = sorted({f"{part['beta'].iloc[0]:g}" for method, part in own.items() if method in JOINT}, key=float)
        notes = [DATA[claim.dataset].apart, "one seed" if seeds == 1 else "",
                 f"joint models at our β {', '.join(ours)}" if ours and claim.beta not in ("best", "") else ""]
        state = "undecided" if abs(gap) <= spread else "reproduced" if gap > 0 else "not reproduced"
        found.append({**line, "our gap": gap, "spread": spread, "seeds": seeds, "state": state,
                      "reason": "; ".join(filter(None, notes))})
    return pd.DataFrame(found)


def count(numbers: pd.DataFrame, orderings: pd.DataFrame) -> pd.DataFrame:
    """By data set and in all: numbers and orderings in each state, and numbers that have one of ours beside them."""
    numbers = numbers[numbers["kind"] != "claimed"]
    parts = {"numbers": numbers, "orderings": orderings}
    counts = pd.concat({what: pd.crosstab(table["dataset"], table["state"]).reindex(columns=list(STATES))
                        for what, table in parts.items()}, axis=1)
    counts.insert(0, ("numbers", "with one of ours"), numbers["ours"].notna().groupby(numbers["dataset"]).sum())
    counts.insert(0, ("numbers", "of the paper"), numbers.groupby("dataset").size())
    counts = counts.fillna(0).astype(int).loc[[name for name in DATA if name in counts.index]]
    counts.loc["all"] = counts.sum()
    counts = counts.rename(index={name: ours.title for name, ours in DATA.items()})
    return counts.rename_axis(index=None, columns=[None, None]).T


# what the page shows -------------------------------------------------------------------------------------------------

def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of `compare` that are scores of a method with one of ours beside the paper's."""
    scores = table[(table["unit"] == "share") & table["ours"].notna() & table["method"].isin(METHOD_NAMES)]
    return scores[scores["kind"] != "claimed"]


def against(table: pd.DataFrame) -> plt.Figure:
    """The paper's scores against ours, a panel a data set with runs; on the diagonal they would be equal."""
    scores = shown(table)
    drawn = [name for name in DATA if name in set(scores["dataset"])]
    fig, grid = plt.subplots(-(-len(drawn) // 2), 2, figsize=(WIDTH, 3.3 * -(-len(drawn) // 2)))
    axes = grid.flatten()
    for ax, name in zip(axes, drawn):
        panel = scores[scores["dataset"] == name]
        low = min(panel["value"].min(), panel["ours"].min())
        high = max(panel["value"].max(), panel["ours"].max())
        ends = [low - 0.05 * (high - low), high + 0.05 * (high - low)]
        ax.plot(ends, ends, color=INK, linewidth=0.8)
        for method in in_order(panel["method"]):
            own = panel[panel["method"] == method]
            ax.scatter(own["value"], own["ours"], s=18, color=METHOD_COLOURS[method], marker=METHOD_MARKERS[method],
                       linewidths=0, alpha=0.85, label=METHOD_NAMES[method])
        ax.set(xlim=ends, ylim=ends, xlabel="score in the paper", ylabel="score here", aspect="equal")
        ax.set_title(DATA[name].title, loc="left")
        ax.locator_params(nbins=4)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
    order = [METHOD_NAMES[method] for method in in_order(scores["method"])]
    fig.legend([handles[label] for label in order], order, loc="outside lower center", ncols=4, handletextpad=0.1,
               markerscale=1.5)
    return fig


def number(value: float, unit: str, spread: float = math.nan) -> str:
    digits = 4 if unit == "squared error" else 0 if unit in ("nats", "FID") else 3
    text = "" if math.isnan(value) else f"{value:,.{digits}f}"
    return text if math.isnan(spread) or not text else f"{text} ± {spread:,.{digits}f}"


def beta_of(value: str | float) -> str:
    """As it is written in tables: best, 4, 1/128, 0.0025."""
    try:
        beta = float(value)
    except ValueError:
        return str(value)
    if math.isnan(beta):
        return ""
    return f"1/{1 / beta:g}" if 0 < beta < 1 and math.log2(beta).is_integer() else f"{beta:g}"


def as_html(lines: pd.DataFrame) -> str:
    """Lines of the scoreboard as a table of HTML, every text escaped."""
    head = ["method", "measure", "beta", "paper", "here", "state, and why"]
    cells = []
    for _, line in lines.iterrows():
        where = {"both": "both views", "": ""}.get(line["view"], line["view"])
        name = {"auroc": "AUROC"}.get(line["measure"], line["measure"].replace("_", " "))
        measure = ", ".join(filter(None, (name, where, line["label"])))
        sign = "≈ " if line["kind"] == "read" else ""
        method = METHOD_NAMES[line["method"]] if line["method"] in METHOD_NAMES else line["method"]
        stated, ours = beta_of(line["beta"]), beta_of(line["our beta"])
        cells.append([escape(method), escape(measure),
                      escape(stated + (f" (here {ours})" if ours not in ("", stated) else "")),
                      sign + number(line["value"], line["unit"], line["spread"]),
                      number(line["ours"], line["unit"], line["our spread"]),
                      f"<details><summary>{line['state']}</summary>{details(line)}</details>"])
    return _table(head, cells)


def details(line: pd.Series) -> str:
    """Where a line is from, why it has its state and, where it has a number of ours, which runs that is: HTML."""
    text = escape("; ".join(filter(None, (line["source"].replace("Figure", "Fig."), line["reason"]))))
    if not line["run"]:
        return text
    runs = f"{line['seeds']} seed" + "s" * (line["seeds"] > 1)
    note = "" if line["same hash"] else " (with the parameters of its day)"
    return (f"{text}; {runs}, profile {link(line['dataset'], line['profile'])}, {line['date']}"
            + f'<span class="command">; <code>{escape(line["command"])}</code>{note}</span>')


def claims_as_html(lines: pd.DataFrame) -> str:
    """Orderings as a table of HTML, every text escaped."""
    head = ["data set", "in the paper", "here", "gap there", "gap here ± 95 %", "seeds", "on what, and why"]
    cells = []
    for _, line in lines.iterrows():
        ours = DATA[line["dataset"]]
        unit = "nats" if abs(line["paper's gap"]) > 1 else "share"
        cells.append([link(line["dataset"], ours.title) if ours.profile else ours.title, escape(line["claim"]),
                      line["state"], number(line["paper's gap"], unit), number(line["our gap"], unit, line["spread"]),
                      str(line["seeds"] or ""), escape(line["reason"])])
    return _table(head, cells, "scoreboard orderings")


def link(chapter: str, text: str) -> str:
    return text and f'<a href="{chapter}.html">{escape(text)}</a>'


def _table(head: list[str], lines: list[list[str]], kind: str = "scoreboard") -> str:
    """HTML of cells that are HTML."""
    rows = (f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"
            for first, *others in lines)
    return (f'<table class="dataframe {kind}" border="1"><thead><tr>'
            + "".join(f'<th scope="col">{name}</th>' for name in head)
            + f"</tr></thead><tbody>{''.join(rows)}</tbody></table>")
