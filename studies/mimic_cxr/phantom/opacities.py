"""What findings add to the lungs of the thorax phantom: clouds, plates, lines, nodules, plaques, and broken ribs."""

import numpy as np

from studies.mimic_cxr.phantom.rays import SIDES, Ellipsoid, Points, tube


def _rng(findings, name: str, i: int = 0) -> np.random.Generator:
    """A finding's own draws, of each side."""
    names = ("atelectasis", "consolidation", "edema", "fracture", "lung_lesion", "lung_opacity", "pleural_other",
             "pneumonia")
    return np.random.default_rng((findings.seed, names.index(name), i))


def opacities(body) -> list[Points]:
    """All clouds, lines and plaques of a `Body`."""
    f, found = body.findings, []
    for i in (0, 1):
        if f.atelectasis[i]:
            found += _atelectasis(body, i, f.atelectasis[i], _rng(f, "atelectasis", i))
        if f.consolidation[i]:
            found += _consolidation(body, i, f.consolidation[i], _rng(f, "consolidation", i))
        if f.pneumonia[i]:
            found += _patches(body, i, f.pneumonia[i], _rng(f, "pneumonia", i), 4)
        if f.lung_opacity[i]:
            found += _patches(body, i, f.lung_opacity[i], _rng(f, "lung_opacity", i), 1)
        if f.pleural_other[i]:
            found += _plaques(body, i, f.pleural_other[i], _rng(f, "pleural_other", i))
        if f.edema:
            found += _edema(body, i, f.edema, _rng(f, "edema", i))
    return found


def _anywhere(body, i: int, rng: np.random.Generator, n: int) -> np.ndarray:
    """At most n points of the aerated lung of side i, evenly spread. The draws do not depend on the lung's state."""
    ball = rng.standard_normal((n, 3))
    ball *= (rng.random(n)**(1 / 3) / np.linalg.norm(ball, axis=1))[:, None]
    ball[:, 2] = 0.33 + 0.45 * ball[:, 2]
    points = body.shells[i][0].at(ball)
    return points[body.in_lung(i, points)]


def _cloud(body, i: int, rng, centre, spread, n: int, volume: float, sigma: float) -> list[Points]:
    """`volume` cm3 of lung turned to soft tissue, in n puffs about `centre`, as far as they are in the lung."""
    puffs = np.asarray(centre) + rng.standard_normal((n, 3)) * spread
    puffs = puffs[body.in_lung(i, puffs)]
    return [Points(puffs, body.contrast * volume / n / (2 * np.pi * sigma**2), sigma, soft=True)]


def _site(body, i: int, rng, low: float = -5.0, high: float = 17.0) -> np.ndarray:
    """A place in the lung, between two heights if there is one."""
    points = _anywhere(body, i, rng, 160)
    chosen = points[(points[:, 2] > low + body.tops[i]) & (points[:, 2] < high)]
    points = chosen if len(chosen) else points
    return points[0] if len(points) else body.hila[i] * (1.6, 1, 1)


def _atelectasis(body, i: int, s: float, rng) -> list[Points]:
    """Plates at the base, and in severe cases an airless wedge behind; `Body` lifts the diaphragm."""
    found = []
    for k in range(3):
        centre = np.array([SIDES[i] * rng.uniform(4.5, 9.5), rng.uniform(-4, 6), body.tops[i] + rng.uniform(0.2, 3.5)])
        angle, lean = rng.uniform(0, 2 * np.pi, 160), rng.normal(0, 0.3, 2)
        radius = np.sqrt(rng.random(160)) * rng.uniform(2.0, 4.0)
        flat = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        plate = centre + np.concatenate([flat, (flat @ lean)[:, None]], 1)
        inside = body.in_lung(i, plate)
        if k < 1 + 2 * s:
            found.append(Points(plate[inside], body.contrast * (0.10 + 0.22 * s) * 0.6, 0.35, soft=True))
    wedge = np.array([SIDES[i] * 4.6, 4.5, body.tops[i] + 0.5])
    return found + _cloud(body, i, rng, wedge, (1.8, 2.6, 2.4), 260, 190 * s**1.5, 0.7)


def _consolidation(body, i: int, s: float, rng) -> list[Points]:
    """A dense part of one lobe: below the oblique fissure, or above it, or the middle lobe."""
    lobe = rng.choice(("lower", "lower", "upper", "middle"))
    points = _anywhere(body, i, rng, 4000)
    fissure = 13 + 1.0 * (points[:, 1] - 6)
    lower = points[:, 2] < fissure
    chosen = lower if lobe == "lower" else ~lower & ((points[:, 2] > 8) if lobe == "upper" else (points[:, 2] < 8))
    points = points[chosen]
    if not len(points):
        return []
    seat = points[0] + 0.0
    near = np.argsort((((points - seat) / (1.2, 1.2, 1.0))**2).sum(1))
    kept = points[near[:int(len(points) * (0.25 + 0.6 * s))]]
    # 4,000 draws fill the shell's ellipsoid down to its lower end: about 1 cm3 a point
    return [Points(kept, body.contrast * (0.4 + 0.5 * s) * 0.95 / (2 * np.pi * 0.8**2), 0.8, soft=True)]


def _patches(body, i: int, s: float, rng, count: int) -> list[Points]:
    """Ill-defined patches of different size."""
    found = []
    for k in range(count):
        site, size, share = _site(body, i, rng, -4, 13), rng.uniform(1.3, 2.4), rng.uniform(0.5, 1.3)
        if k < 1 + (count - 1) * s * 1.2:
            volume = share * (25 + 150 * s) * (size / 1.8)**2
            found += _cloud(body, i, rng, site, size * (0.8 + 0.5 * s), 110, volume, 0.6)
    return found


def _edema(body, i: int, s: float, rng) -> list[Points]:
    """Haze about the hilum, densest there, and short septal lines at the outer base."""
    points = _anywhere(body, i, rng, 1400)
    hilum = body.hila[i]
    far = np.sqrt((((points - hilum) / (5.0, 6.5, 7.5))**2).sum(1))
    weight = np.exp(-0.5 * far**2) + 0.18
    haze = Points(points, body.contrast * (0.03 + 0.36 * s) * 2.4 * weight / (2 * np.pi * 0.9**2), 0.9, soft=True)
    lines = []
    for _ in range(14):
        a = body.shells[i][0].at(np.array([SIDES[i] * rng.uniform(0.75, 0.95), rng.uniform(-0.3, 0.3),
                                           rng.uniform(0.05, 0.3)])[None])[0]
        path = np.stack([a, a - (SIDES[i] * rng.uniform(1.2, 2.2), 0, rng.uniform(-0.2, 0.2))])
        line = tube(path, body.contrast * (0.3 + 0.7 * s), 0.12)
        inside = body.in_lung(i, line.where, 0.99)
        lines.append(Points(line.where[inside], line.mass, line.radius))
    return [haze, Points(np.concatenate([x.where for x in lines]), lines[0].mass, 0.12)]


def _plaques(body, i: int, s: float, rng) -> list[Points]:
    """Thickened pleura along the side wall, in worse cases calcified, and a cap over the apex."""
    found = []
    for k in range(3):
        angle, height = rng.uniform(-1.0, 1.0), rng.uniform(0.02, 0.42)
        width, length = rng.uniform(0.2, 0.5), rng.uniform(0.05, 0.14)
        u, v = rng.uniform(-1, 1, (2, 220))
        a, h = angle + width * u, height + length * v
        r = np.sqrt(1 - h**2) * 0.985
        patch = body.shells[i][0].at(np.stack([SIDES[i] * r * np.cos(a), r * np.sin(a), h], 1))
        patch = patch[body.domes[i].depth(patch) > 0.97]
        if k < 1 + 2 * s:
            found.append(Points(patch, 0.2 * (1.0 + 2.4 * s) * width * length * 300 / 220 / 2, 0.3, soft=True))
    return found


def nodules(body) -> list[tuple[Ellipsoid, float]]:
    """Round lesions of 0.6 to 4.9 cm radius with the attenuation that they have more than the lung."""
    f, found = body.findings, []
    for i in (0, 1):
        s, rng = f.lung_lesion[i], _rng(f, "lung_lesion", i)
        if s:
            for _ in range(1 + (rng.random() < 0.3) + (rng.random() < 0.2)):
                site, r = _site(body, i, rng, -3, 16), rng.uniform(0.8, 1.2) * (0.7 + 2.7 * s)
                found.append((Ellipsoid(tuple(site), tuple(r * rng.uniform(0.8, 1.2, 3))), body.contrast))
    return found


def fractured(paths: np.ndarray, findings, i: int, mu: float) -> list[Points]:
    """The ribs of side i, `paths` (12, P, 3); broken ones in two pieces that miss each other, with a little callus."""
    s, rng, callus = findings.fracture[i], _rng(findings, "fracture", i), []
    kept = np.ones(paths.shape[:2], bool)
    first, at, steps = int(rng.integers(2, 7)), rng.uniform(0.3, 0.7), rng.normal(0, 0.02, 5)
    if s:
        paths, by = paths.copy(), 0.45 + 1.0 * s
        for k in range(first, first + 1 + int(3.6 * s)):
            cut = int((at + steps[k - first]) * paths.shape[1])
            shrinking = np.linspace(1, 0, paths.shape[1] - cut)[:, None]
            paths[k, cut:] += shrinking * (0.0, 0.3 * by, -by)
            kept[k, cut - 1:cut + 1] = False
            callus += [paths[k, cut - 2], paths[k, cut + 1]]
    lengths = np.linalg.norm(np.diff(paths, axis=1), axis=2)
    masses = mu * np.concatenate([lengths, lengths[:, -1:]], 1)
    masses[:, :-1][lengths > 3 * np.median(lengths)] = 0
    found = [Points(paths[kept], masses[kept], 0.52, hollow=0.6)]
    return [*found, Points(np.array(callus), 0.8 * mu, 0.6)] if callus else found
