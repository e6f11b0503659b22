"""Devices on and in the thorax phantom: generators, leads, lines, tubes, wires and electrodes."""

from dataclasses import dataclass

import numpy as np

from studies.mimic_cxr.phantom.rays import SIDES, Ellipsoid, Points, smooth, tube, turned

DEVICES = ("pacemaker", "central line", "endotracheal tube", "gastric tube", "sternal wires", "chest tube",
           "electrodes")


@dataclass(frozen=True)
class Devices:
    """`points` to splat, and solid `bodies` with their attenuation per cm."""

    points: list[Points]
    bodies: list[tuple[Ellipsoid, float]]


def devices(body) -> Devices:
    """The devices that a `Body`'s findings name."""
    f, found, bodies = body.findings, [], []
    front = body.trunk.centre[1] - body.trunk.radii[1]
    floor = 0.5 * (body.tops[0] + body.tops[1])
    for k, name in enumerate(DEVICES):
        if name not in f.devices:
            continue
        rng = np.random.default_rng((f.seed, 100 + k))
        if name == "pacemaker":
            side = 1 if rng.random() < 0.85 else -1
            box = np.array([side * rng.uniform(9.5, 11.5), front + 3.2, rng.uniform(11.5, 14)])
            bodies.append((Ellipsoid(tuple(box), (2.4, 0.45, 2.1), turned(15, 0, 20 * side)), 1.6))
            bodies.append((Ellipsoid(tuple(box + (0, 0, 2.0)), (1.2, 0.35, 0.8)), 1.2))
            ends = [(-2.6, -2.0, floor + 3.0), (5.2 + 1.5 * f.cardiomegaly, -5.0, floor + 1.4)]
            for end in ends[:rng.integers(1, 3)]:
                found.append(tube(smooth([tuple(box), (side * 8, -5.5, 16.8), (side * 3, -2.5, 16.0),
                                          (-2.0, -0.5, 13.0), (-2.7, -0.5, floor + 6.0), end], 40), 2.6, 0.14))
                found.append(Points(np.array([end]), 0.5, 0.25))
        elif name == "central line":
            side, neck = (-1 if rng.random() < 0.75 else 1), rng.random() < 0.6
            start = ([(side * 4.0, -1.0, 26), (side * 3.4, -1.5, 19)] if neck else
                     [(side * 19, 1.0, 9), (side * 14, -1, 16), (side * 7, -3.5, 16.8)])
            found.append(tube(smooth([*start, (side * 1.9, -1.8, 15.2), (-2.2, -0.8, 12),
                                      (-2.5, -0.4, rng.uniform(5, 9))], 40), 1.6, 0.15))
        elif name == "endotracheal tube":
            path = smooth([(0.0, -1.0, 30), (0, 0.6, 20), (0.1, 1.2, rng.uniform(11.5, 15))], 24)
            found.append(tube(path, 0.25, 0.45, hollow=0.7))
            found.append(tube(path + (0.35, 0.2, 0), 2.5, 0.13))
        elif name == "gastric tube":
            found.append(tube(smooth([(0.0, 0.5, 30), (0.3, 3.4, 18), (0.3, 4.8, 8), (1.0, 4.2, 0), (4.0, 1.0, -4),
                                      (8.0, -1.0, -8)], 40), 1.6, 0.2))
        elif name == "sternal wires":
            for z in np.linspace(14.0, 1.5, rng.integers(5, 8)):
                angle = np.linspace(0, 2 * np.pi, 26)
                x0, z0 = 0.15 * rng.standard_normal(2)
                ring = np.stack([x0 + 1.0 * np.cos(angle), -8.4 + 0.8 * np.sin(angle) + 0.10 * max(z - 4, 0),
                                 z + z0 + 0.4 * np.cos(angle + rng.uniform(-0.5, 0.5))], 1)
                found.append(tube(ring, 5.0, 0.11))
        elif name == "chest tube":
            i = int(np.argmax(np.asarray(f.pneumothorax) + 0.5 * np.asarray(f.pleural_effusion) + (0, 1e-6)))
            side = SIDES[i]
            path = smooth([(side * 20, -1.0, rng.uniform(-2, 2)), (side * 13.4, 1.0, 5), (side * 11, 4.0, 11),
                           (side * 7.5, 3.0, rng.uniform(14, 17))], 40)
            found.append(tube(path, 0.2, 0.5, hollow=0.6))
            found.append(tube(path + (0.3 * side, 0, 0.3), 2.5, 0.13))
        else:
            for _ in range(rng.integers(3, 6)):
                x, z = rng.uniform(-13, 13), rng.uniform(0, 15)
                y = 1.0 - (body.trunk.radii[1] + 0.2) * np.sqrt(max(1 - (x / body.trunk.radii[0])**2, 0.05))
                bodies.append((Ellipsoid((x, y, z), (0.65, 0.35, 0.65)), 1.2))
                found.append(tube(smooth([(x, y, z), (x * 1.1 + rng.normal(), y - 1, z - 5),
                                          (x * 0.9 + 2 * rng.normal(), y - 1, z - 14)], 24), 1.6, 0.13))
    return Devices(found, bodies)
