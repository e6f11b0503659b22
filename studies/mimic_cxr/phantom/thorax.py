"""A thorax phantom: patients drawn at random, fourteen findings as physical causes, radiographs of both projections.

`render` makes the radiograph of an `Anatomy` with `Findings` as one `Acquisition` takes it: line integrals of the
attenuation under a diverging beam (`rays`), Beer and Lambert's law, scatter, noise, and the detector's
grey, bones bright. The findings live in the same three-dimensional body for every view, so frontal and lateral images
show one cause, each what its projection lets through. No patient's data is in it: shapes are ellipsoids and tubes with
textbook sizes, attenuations those of water, bone and air at about 65 keV.

Sides are (right, left), the patient's. Lengths are cm of a body of size 1; `Anatomy.size` scales it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from studies.mimic_cxr.phantom.body import Body
from studies.mimic_cxr.phantom.devices import DEVICES
from studies.mimic_cxr.phantom.rays import Beam, turned

FRONTAL, LATERAL = ("PA", "AP"), ("LATERAL", "LL")
PAIR = (0.0, 0.0)


@dataclass(frozen=True)
class Anatomy:
    """A patient. Numbers without a unit are z-scores of an adult population, or shares where so named.

    size         of everything, 1 for an adult of 172 cm
    habitus      thickness of the soft tissue, from thin to obese
    breast       0 to 1.2, share of a large breast's volume
    heart        width of the healthy heart
    lung_width, lung_height   of both lungs
    dome         height of the two diaphragms over their usual place, cm
    aorta        unfolding with age
    kyphosis, scoliosis       of the spine
    density      of the healthy lung, share of soft tissue
    gas          0 to 1, size of the stomach's bubble
    seed         of vessels and small irregularities
    """

    size: float = 1.0
    habitus: float = 0.0
    breast: float = 0.0
    heart: float = 0.0
    lung_width: float = 0.0
    lung_height: float = 0.0
    dome: tuple[float, float] = PAIR
    aorta: float = 0.0
    kyphosis: float = 0.0
    scoliosis: float = 0.0
    density: float = 0.26
    gas: float = 0.6
    seed: int = 0


@dataclass(frozen=True)
class Findings:
    """Severities from 0 (absent) to 1, of (right, left) where a finding has a side; `devices` are some of `DEVICES`.

    `seed` places what has no side: lobes, nodules, ribs. A finding's own draws depend on nothing but it; it
    moves only where another one takes the lung that it would lie in.
    """

    atelectasis: tuple[float, float] = PAIR
    cardiomegaly: float = 0.0
    consolidation: tuple[float, float] = PAIR
    edema: float = 0.0
    enlarged_cardiomediastinum: float = 0.0
    fracture: tuple[float, float] = PAIR
    lung_lesion: tuple[float, float] = PAIR
    lung_opacity: tuple[float, float] = PAIR        # of no other name
    pleural_effusion: tuple[float, float] = PAIR
    pleural_other: tuple[float, float] = PAIR
    pneumonia: tuple[float, float] = PAIR
    pneumothorax: tuple[float, float] = PAIR
    devices: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Acquisition:
    """How one image is taken. Angles in degrees, lengths in cm.

    shape       (H, W) pixels; field: cm of the detector's shorter side
    distance    from the source to the detector; gap: from the body's axis to the detector
    turn, tilt, roll   of the body about z, about the axis across the image, and about the beam
    shift       to the image's right and top
    inspiration 0 (none) to 1 (full), a little more in a deep breath: raises the diaphragm and shortens the lungs
    supine      the body lies: fluid runs to the back; arms: "down", "out" or "up"
    level, contrast   of the grey window; scatter: scattered over primary light; photons: per pixel in air
    blur        sigma in cm; border: pixels of black at (left, right); marker: whether a letter tells the side
    seed        of noise and texture
    """

    shape: tuple[int, int] = (192, 160)
    field: float = 35.0
    distance: float = 183.0
    gap: float = 14.0
    turn: float = 0.0
    tilt: float = 0.0
    roll: float = 0.0
    shift: tuple[float, float] = PAIR
    inspiration: float = 1.0
    supine: bool = False
    arms: str = "out"
    level: float = 0.0
    contrast: float = 1.0
    scatter: float = 0.25
    photons: float = 2e5
    blur: float = 0.08
    border: tuple[int, int] = (0, 0)
    marker: bool = False
    seed: int = 0


def standard(view: str, short_side: int = 160) -> Acquisition:
    """The textbook's acquisition of a view: no rotation, full inspiration, little noise."""
    tall = (round(1.2 * short_side), short_side)
    if view in LATERAL:
        return Acquisition(tall, field=35.0, gap=23.0, arms="up", shift=(-1.0, -6.5))
    if view == "AP":
        return Acquisition(tall, distance=105.0, gap=15.0, field=38.0, inspiration=0.6, arms="down", scatter=0.4,
                           photons=6e4, blur=0.12, shift=(0.0, -7.0))
    return Acquisition(tall, shift=(0.0, -7.0))


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A patient of an adult population."""
    z = rng.standard_normal(10)
    female = rng.random() < 0.48
    age = rng.random()
    return Anatomy(size=float(np.clip(1.0 - 0.07 * female + 0.05 * z[0], 0.82, 1.15)), habitus=float(z[1]),
                   breast=float(female * np.clip(0.5 + 0.3 * z[2] + 0.15 * z[1], 0.1, 1.2)), heart=float(z[3]),
                   lung_width=float(z[4]), lung_height=float(z[5]), dome=(float(0.6 * z[6]), float(0.6 * z[7])),
                   aorta=float(2 * age - 1 + 0.4 * z[8]), kyphosis=float(1.6 * age - 0.8 + 0.6 * z[9]),
                   scoliosis=float(rng.standard_normal()), density=float(rng.uniform(0.21, 0.31)),
                   gas=float(rng.random()), seed=int(rng.integers(2**31)))


def draw_acquisition(rng: np.random.Generator, view: str, short_side: int = 160) -> Acquisition:
    """An everyday acquisition. AP images, taken in bed, are worse: turned, tilted, little breath, more scatter."""
    a, z = standard(view, short_side), rng.standard_normal(8)
    bed, lateral = view == "AP", view in LATERAL
    ratio = rng.choice((1.2, 1.2, 1.17, 1.0 / 1.2) if not lateral else (1.2, 1.2, 1.24, 1.17))
    shape = (round(ratio * short_side), short_side) if ratio > 1 else (short_side, round(short_side / ratio))
    loose = 1.8 if bed else 1.0
    border = tuple(int(short_side * b) if b > 0 else 0 for b in rng.uniform(-0.14, 0.05, 2))
    return Acquisition(
        shape, a.field * float(np.exp(0.035 * z[0])), a.distance * float(np.exp((0.06 if bed else 0.01) * z[1])), a.gap,
        turn=float((3.5 if lateral else 2.0 * loose) * z[2]), tilt=float(2.0 * loose * z[3]),
        roll=float(1.0 * loose * z[4]), shift=(a.shift[0] + float(0.7 * loose * z[5]),
                                               a.shift[1] + float(0.7 * loose * z[6])),
        inspiration=float(np.clip(rng.normal(0.5 if bed else 0.88, 0.2 if bed else 0.12), 0, 1.1)),
        supine=bool(bed and rng.random() < 0.5), arms=a.arms, level=float(0.05 * z[7]),
        contrast=float(np.exp(0.12 * rng.standard_normal())),
        scatter=a.scatter * float(rng.uniform(0.7, 1.4)), photons=a.photons * float(rng.uniform(0.5, 1.5)),
        blur=a.blur * float(rng.uniform(0.8, 1.5)), border=border, marker=bool(rng.random() < 0.7),
        seed=int(rng.integers(2**31)))


def render(anatomy: Anatomy, findings: Findings, view: str, acquisition: Acquisition | None = None) -> np.ndarray:
    """A radiograph (H, W) uint8. `view`: "PA", "AP", "LATERAL" or "LL"; by default as `standard` takes it.

    The same arguments give the same image. About 14 ms at 160 x 192 pixels on one core.
    """
    acquisition = standard(view) if acquisition is None else acquisition
    return develop(*_integrals(anatomy, findings, view, acquisition), view, acquisition)


def line_integrals(anatomy: Anatomy, findings: Findings, view: str,
                   acquisition: Acquisition | None = None) -> np.ndarray:
    """Attenuation summed along the ray of each pixel (H, W), without texture, scatter and noise."""
    return _integrals(anatomy, findings, view, standard(view) if acquisition is None else acquisition)[0]


def beam_of(anatomy: Anatomy, view: str, a: Acquisition) -> Beam:
    """The beam in units of the body: a larger body is the same body closer to a smaller machine."""
    s, roll = anatomy.size, np.deg2rad(a.roll)
    about = turned(about_x=a.tilt, about_y=np.rad2deg(roll)) if view in FRONTAL else turned(about_x=np.rad2deg(roll),
                                                                                            about_y=a.tilt)
    return Beam(view, a.shape, a.field / min(a.shape) / s, a.distance / s, a.gap / s,
                about @ turned(about_z=a.turn), (a.shift[0] / s, a.shift[1] / s))


def _integrals(anatomy, findings, view, a):
    """Line integrals (H, W), and cm of lung (H, W), which carries the texture."""
    return Body(anatomy, findings, a, view).attenuation(beam_of(anatomy, view, a))


def develop(integrals: np.ndarray, lung: np.ndarray, view: str, a: Acquisition) -> np.ndarray:
    """From line integrals (H, W) and cm of lung (H, W) to grey (H, W) uint8: primary and scattered light, noise,
    logarithm, window, borders."""
    rng = np.random.default_rng(a.seed)
    height, width = a.shape
    fine, coarse = rng.standard_normal((2, height, width), dtype=np.float32)
    coarse = coarse + np.roll(coarse, 1, 0)
    coarse = coarse + np.roll(coarse, 1, 1)
    texture = 0.5 * fine + 0.5 * coarse
    light = np.exp(-(integrals + 0.009 * texture * np.sqrt(lung)))
    light = light + a.scatter * _soften(np.where(light < 0.5, light, 0.1), 0.1 * min(a.shape))
    light += np.sqrt(light / a.photons) * rng.standard_normal((height, width), dtype=np.float32)
    dark = -np.log(np.maximum(light, 1e-5))
    dark -= 0.3 * _soften(dark, 0.1 * min(a.shape))     # dynamic range compression, as detectors' software does
    centre = dark[height // 6:-height // 6:3, width // 5:-width // 5:3]
    low, high = np.percentile(centre, (1, 99))
    grey = (dark - low) / max(high - low, 0.1)
    grey = 0.5 + a.contrast * (grey - 0.5) * 0.8 + a.level
    grey = 1 / (1 + np.exp(-3.6 * (grey - 0.46)))     # the film's S-shaped curve
    grey = np.clip((grey - 0.07) / 0.86, 0, 1)
    grey *= np.minimum(integrals / 0.5, 1)           # beside the body the detector is burnt
    left, right = a.border
    grey[:, :left] = 0
    grey[:, width - right:] = 0
    image = (255 * grey + 0.5).astype(np.uint8)
    if a.marker:
        _mark(image, left=view in LATERAL or a.seed % 3 > 0, seed=a.seed, lateral=view in LATERAL, border=a.border)
    return image


_LETTERS = {"L": ("1000", "1000", "1000", "1000", "1111"), "R": ("1110", "1001", "1110", "1010", "1001")}


def _mark(image: np.ndarray, left: bool, seed: int, lateral: bool, border: tuple[int, int]) -> None:
    """The lead letter of the technician."""
    height, width = image.shape
    size = max(min(image.shape) // 60, 1)
    glyph = np.kron([[int(c) for c in row] for row in _LETTERS["L" if left else "R"]], np.ones((size, size), int))
    row = int(height * (0.04 + 0.1 * (seed % 97) / 97))
    column = border[0] + int(0.04 * width) if not left or lateral else width - border[1] - int(0.05 * width) - 4 * size
    image[row:row + 5 * size, column:column + 4 * size][glyph > 0] = 235


def _soften(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, of each axis by a matrix; the weights of what lies outside go to the rest."""
    # in float64: processors round products of matrices differently, in float32 by enough to change a pixel now and then
    return (_weights(image.shape[0], sigma) @ image @ _weights(image.shape[1], sigma).T).astype(np.float32)


@lru_cache(maxsize=64)
def _weights(n: int, sigma: float) -> np.ndarray:
    at = np.arange(n)
    weights = np.exp(-0.5 * ((at[:, None] - at) / sigma)**2)
    return weights / weights.sum(1, keepdims=True)


__all__ = ["DEVICES", "Acquisition", "Anatomy", "Findings", "draw_acquisition", "draw_anatomy",
           "line_integrals", "render", "standard"]
