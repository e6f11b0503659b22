"""Patients of the stand-in for MIMIC-CXR: what they have, what their reports say, and which images are taken.

A finding is present where a normal variable exceeds a threshold; the variables share six factors (heart failure,
intensive care, infection, fluid, trauma, tumour), a part of which stays with the patient from study to study. So edema
comes with a large heart and effusions, effusions with atelectasis, pneumothorax with devices. How far the variable is
over the threshold is how severe the finding is: most are mild.

Labels are what a report says of it, not the truth: subtle findings are uncertain (-1) or missed, a few are claimed
that are not there, and most absent ones are not mentioned (empty). `SHARES` are approximately the shares of the
CheXpert labels among the 227,827 studies of MIMIC-CXR-JPG, in per cent as published with it (Johnson et al. 2019,
arXiv:1901.07042), rounded; the co-occurrences are invented, guided by textbooks.
"""

from dataclasses import dataclass, replace
from math import erfc, exp
from statistics import NormalDist

import numpy as np

from studies.mimic_cxr.index import LABELS
from studies.mimic_cxr.phantom.thorax import Anatomy, Findings, draw_anatomy

# label -> per cent of the studies with 1, with 0 and with -1
SHARES = {"Atelectasis": (20.1, 0.7, 4.5), "Cardiomegaly": (19.7, 7.0, 2.6), "Consolidation": (4.7, 3.5, 1.9),
          "Edema": (11.9, 11.3, 5.8), "Enlarged Cardiomediastinum": (3.2, 2.3, 4.1), "Fracture": (1.9, 0.4, 0.2),
          "Lung Lesion": (2.8, 0.4, 0.5), "Lung Opacity": (22.6, 1.3, 1.7), "No Finding": (33.1, 0.0, 0.0),
          "Pleural Effusion": (23.8, 11.9, 2.6), "Pleural Other": (0.9, 0.1, 0.3), "Pneumonia": (7.3, 10.7, 8.0),
          "Pneumothorax": (4.5, 18.6, 0.5), "Support Devices": (29.2, 1.5, 0.1)}
# what is drawn -> loadings on heart failure, intensive care, infection, fluid, trauma and tumour
LOADINGS = {"Atelectasis": (0.0, 0.35, 0.1, 0.55, 0.0, 0.0), "Cardiomegaly": (0.75, 0.1, 0.0, 0.1, 0.0, 0.0),
            "Consolidation": (0.0, 0.35, 0.65, 0.2, 0.0, 0.1), "Edema": (0.75, 0.35, 0.0, 0.15, 0.0, 0.0),
            "Enlarged Cardiomediastinum": (0.3, 0.25, 0.0, 0.0, 0.1, 0.3), "Fracture": (0.0, 0.0, 0.0, 0.0, 0.7, 0.0),
            "Lung Lesion": (0.0, -0.1, 0.0, 0.0, 0.0, 0.7), "Lung Opacity": (0.0, 0.15, 0.5, 0.0, 0.0, 0.2),
            "Pleural Effusion": (0.45, 0.3, 0.1, 0.6, 0.0, 0.2), "Pleural Other": (0.0, 0.0, 0.0, 0.15, 0.35, 0.3),
            "Pneumonia": (0.0, 0.2, 0.75, 0.1, 0.0, 0.0), "Pneumothorax": (-0.1, 0.45, 0.0, 0.0, 0.35, 0.1),
            "Support Devices": (0.3, 0.75, 0.0, 0.1, 0.05, 0.0)}
DRAWN = tuple(LOADINGS)
# share of a present finding on both sides, and of the rest on the right; of those that have a side
SIDED = {"Atelectasis": (0.35, 0.42), "Consolidation": (0.15, 0.55), "Fracture": (0.08, 0.5),
         "Lung Lesion": (0.15, 0.55), "Lung Opacity": (0.25, 0.52), "Pleural Effusion": (0.42, 0.55),
         "Pleural Other": (0.25, 0.5), "Pneumonia": (0.25, 0.55), "Pneumothorax": (0.03, 0.55)}
STAYS = 0.6             # share of a variable's variance that is the patient's
MISSED = 0.05           # share of the findings that the report does not mention; as many are claimed that are not there
UNSPECIFIC = 0.09       # share of the studies with an opacity that is none of the others
DOUBTED_THERE = 0.6     # share of the uncertain labels whose finding is there
_MATRIX = np.array([LOADINGS[name] for name in DRAWN])
_OWN = np.sqrt(1 - (_MATRIX**2).sum(1))


def prevalence(name: str) -> float:
    """The share of studies in which a finding is really there, so that the reports come to `SHARES`."""
    if name == "Lung Opacity":
        return UNSPECIFIC
    positive, _, uncertain = SHARES[name]
    return (positive + DOUBTED_THERE * uncertain) / 100


_RATES = {name: prevalence(name) for name in DRAWN}
_THRESHOLDS = np.array([NormalDist().inv_cdf(1 - _RATES[name]) for name in DRAWN])


@dataclass(frozen=True)
class Study:
    """One study: what is there, what the report says, and which images are taken.

    findings  as the phantom takes them
    severity  finding -> (0, 1], of those that are there
    labels    label -> 1, 0 or -1; those that the report does not mention are absent
    views     of each image the view that is rendered, and what ViewPosition says: the same or nothing
    """

    findings: Findings
    severity: dict[str, float]
    labels: dict[str, int]
    views: tuple[tuple[str, str], ...]

    @property
    def truth(self) -> dict[str, bool]:
        """Label -> whether it is really there; an opacity of any kind is a Lung Opacity."""
        there = {label: label in self.severity for label in LABELS}
        there["Lung Opacity"] = _opacity(self.severity) > 0
        there["No Finding"] = not any(there[label] for label in LABELS if label != "Support Devices")
        return there


@dataclass(frozen=True)
class Patient:
    """A patient's anatomy and studies, in the order of time."""

    anatomy: Anatomy
    studies: tuple[Study, ...]


def draw_patient(seed: int, number: int) -> Patient:
    """Patient `number` of the set with this seed: depends on nothing else."""
    rng = np.random.default_rng((seed, number))
    anatomy = draw_anatomy(rng)
    factors, own = rng.standard_normal(_MATRIX.shape[1]), rng.standard_normal(len(DRAWN))
    anatomy = _marked(anatomy, factors[4], factors[5])
    sides = {name: _side(rng, *SIDED[name]) for name in SIDED}
    place = int(rng.integers(2**31))
    count = min(int(rng.geometric(0.45)), 9)
    return Patient(anatomy, tuple(_study(rng, factors, own, sides, place) for _ in range(count)))


def _marked(anatomy: Anatomy, trauma: float, tumour: float) -> Anatomy:
    """What goes with age and with smoking: bones that break and bend, wide vessels, large dark lungs."""
    return replace(anatomy, kyphosis=anatomy.kyphosis + 0.7 * trauma, aorta=anatomy.aorta + 0.5 * trauma + 0.3 * tumour,
                   lung_height=anatomy.lung_height + 0.7 * tumour, density=anatomy.density - 0.02 * np.tanh(tumour),
                   dome=tuple(x - 0.5 * tumour for x in anatomy.dome))


def _side(rng: np.random.Generator, both: float, right: float) -> tuple[float, float]:
    """How much of a finding's severity the (right, left) side gets."""
    u, v, weaker = rng.random(3)
    strong = (1.0, 0.0) if v < right else (0.0, 1.0)
    return strong if u > both else tuple(max(x, 0.35 + 0.6 * weaker) for x in strong)


def _study(rng, factors, own, sides, place: int) -> Study:
    now = STAYS**0.5 * factors + (1 - STAYS)**0.5 * rng.standard_normal(len(factors))
    alone = STAYS**0.5 * own + (1 - STAYS)**0.5 * rng.standard_normal(len(own))
    z = _MATRIX @ now + _OWN * alone
    rank = {name: 0.5 * erfc(z[k] / 2**0.5) / _RATES[name] for k, name in enumerate(DRAWN) if z[k] > _THRESHOLDS[k]}
    severity = {name: 0.06 + 0.94 * (1 - p)**1.2 for name, p in rank.items()}
    bed, lateral = _bed(now[1]), _lateral(now[1])
    views = _views(rng, bed, lateral)
    devices = _devices(rng, severity, any(view == "AP" for view, _ in views))
    return Study(_findings(severity, sides, devices, place), severity, _report(rng, rank, severity), views)


def _findings(severity: dict[str, float], sides: dict, devices: tuple[str, ...], place: int) -> Findings:
    """Severities as the phantom takes them."""
    def of(name: str, scale: float = 1.0, power: float = 1.0):
        s = scale * severity.get(name, 0.0)**power
        return (s * sides[name][0], s * sides[name][1]) if name in sides else s

    return Findings(atelectasis=of("Atelectasis"), cardiomegaly=of("Cardiomegaly"), consolidation=of("Consolidation"),
                    edema=of("Edema"), enlarged_cardiomediastinum=of("Enlarged Cardiomediastinum", 0.9),
                    fracture=of("Fracture"), lung_lesion=of("Lung Lesion"), lung_opacity=of("Lung Opacity"),
                    pleural_effusion=of("Pleural Effusion", 0.8, 1.3), pleural_other=of("Pleural Other"),
                    pneumonia=of("Pneumonia"), pneumothorax=of("Pneumothorax", 0.8), devices=devices, seed=place)


def _devices(rng, severity: dict[str, float], in_bed: bool) -> tuple[str, ...]:
    """What the devices are, by what the patient has; electrodes of patients in bed are no device worth a label."""
    u, found = rng.random(7), []
    if "Support Devices" in severity:
        chances = {"pacemaker": 0.24 + 0.14 * ("Cardiomegaly" in severity), "central line": 0.7 if in_bed else 0.35,
                   "endotracheal tube": 0.4 if in_bed else 0.0, "gastric tube": 0.4 if in_bed else 0.02,
                   "sternal wires": 0.25 + 0.1 * ("Cardiomegaly" in severity),
                   "chest tube": 0.6 if "Pneumothorax" in severity else 0.1 * ("Pleural Effusion" in severity)}
        found = [name for name, x in zip(chances, u) if x < chances[name]] or ["central line"]
    return (*found, "electrodes") if in_bed and u[6] < 0.35 else tuple(found)


# what the report says -----------------------------------------------------------------------------------------------

def _report(rng, rank: dict[str, float], severity: dict[str, float]) -> dict[str, int]:
    """Labels of a study. As many draws whatever is there, so studies differ in nothing else."""
    said = {}
    for name, (mention, error) in zip(LABELS, rng.random((len(LABELS), 2))):
        if name == "No Finding":
            continue
        positive, negative, uncertain = (share / 100 for share in SHARES[name])
        if name == "Lung Opacity":
            label = _says_opacity(_opacity(severity), mention, error)
        elif name in rank:
            rate = _RATES[name]
            doubt = min(3 * rank[name]**2 * DOUBTED_THERE * uncertain / rate, 0.95)  # 3 p^2 has the mean 1
            miss = 2 * MISSED * rank[name]
            label = None if error < miss else -1 if mention < doubt else 1
        else:
            rate = 1 - _RATES[name]
            steps = np.cumsum([MISSED * positive / rate, (1 - DOUBTED_THERE) * uncertain / rate, negative / rate])
            label = (1, -1, 0, None)[int(np.searchsorted(steps, mention, side="right"))]
        if label is not None:
            said[name] = label
    if not any(said[name] for name in said if name != "Support Devices"):
        said["No Finding"] = 1
    return said


def _opacity(severity: dict[str, float]) -> float:
    """How much of the lungs' opacity there is to speak of."""
    weights = {"Lung Opacity": 1.0, "Pneumonia": 1.0, "Consolidation": 1.0, "Edema": 0.6, "Atelectasis": 0.45,
               "Lung Lesion": 0.6}
    return max((weight * severity.get(name, 0) for name, weight in weights.items()), default=0.0)


def _says_opacity(amount: float, mention: float, error: float) -> int | None:
    """Reports often name the cause and not the opacity."""
    if not amount:
        return 1 if mention < 0.015 else 0 if mention < 0.035 else None
    if mention < min(0.22 + 0.85 * amount, 0.95):
        return -1 if error < 0.12 * (1 - amount) else 1
    return None


# which images are taken ---------------------------------------------------------------------------------------------

def _bed(care: float) -> float:
    """Chance of an AP image where a lateral one is taken too."""
    return 1 / (1 + exp(2.2 - 0.9 * care))


def _lateral(care: float) -> float:
    """Chance of a lateral image: those who cannot stand have none."""
    return 1 / (1 + exp(-0.55 + 1.3 * care))


def _views(rng, bed: float, lateral: float) -> tuple[tuple[str, str], ...]:
    """Views of a study, and what its ViewPosition says: now and then nothing."""
    u = rng.random(6)
    side = "LATERAL" if u[1] < 0.7 else "LL"
    if u[0] < 0.015:
        views = [side]
    elif u[0] < 0.015 + lateral * 0.985:
        front = "AP" if u[2] < bed else "PA"
        views = [front] * (2 if u[3] < 0.1 else 1) + [side] * (2 if u[4] < 0.04 else 1)
    else:
        views = ["AP" if u[2] < 0.6 + bed else "PA"] * (2 if u[3] < 0.06 else 1)
    unnamed = u[5] < 0.02 and len(views) > 1
    return tuple((view, "" if unnamed and k == len(views) - 1 else view) for k, view in enumerate(views))
