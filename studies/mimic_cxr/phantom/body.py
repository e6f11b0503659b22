"""The body of the thorax phantom: organs as ellipsoids, bones and vessels as tubes, and what findings do to them.

Axes and units as in `rays`; z = 0 is a little below the right dome of the diaphragm. Attenuations are per
cm. Lungs are what is left of their shells after diaphragm, heart, mediastinum and great vessels have taken their
place: an organ in the lung replaces it.
"""

import numpy as np

from studies.mimic_cxr.phantom import devices as thorax_devices, opacities as thorax_opacities
from studies.mimic_cxr.phantom.rays import SIDES, Beam, Ellipsoid, Interval, Points, smooth, tube, turned, without

SOFT, BONE = 0.20, 0.50
# organs of `Body.inside` that reach into the right and into the left lung
TAKEN = ((0, 1, 2), (0, 2, 3, 4))


class Body:
    """Everything that one image goes through."""

    def __init__(self, anatomy, findings, acquisition, view: str):
        self.anatomy, self.findings, self.acquisition, self.view = anatomy, findings, acquisition, view
        self.lung_mu = SOFT * anatomy.density
        self.contrast = SOFT - self.lung_mu     # what takes the lung's place adds so much per cm
        self._cavity()
        self._trunk()
        self.opacities = thorax_opacities.opacities(self)
        self.devices = thorax_devices.devices(self)

    # organs

    def _cavity(self) -> None:
        """Lungs' shells, domes, heart and mediastinum, and how findings move them."""
        p, f, a = self.anatomy, self.findings, self.acquisition
        wide, tall = 1 + 0.05 * p.lung_width, 1 + 0.04 * p.lung_height
        lift = 3.2 * (1 - a.inspiration)
        self.shells, self.domes, self.tops = [], [], []
        for i, side in enumerate(SIDES):
            radius = (6.7 - 0.15 * i) * wide
            outer = Ellipsoid((side * 7.0 * wide, 0.8, -2.0), (radius, 9.2, 29 * tall), turned(-5, -2.5 * side))
            cap = Ellipsoid((side * 6.6 * wide, 1.2, 5.0 * tall), (8.1 * wide, 11.8, 15.6 * tall), turned(-4))
            top = (2.6, 1.5)[i] + lift + p.dome[i] + 2.6 * f.atelectasis[i] - 1.2 * f.pneumothorax[i]
            self.shells.append((outer, cap))
            self.tops.append(top)
            self.domes.append(Ellipsoid((side * 7.0 * wide, -0.9, top - 9.5), (radius * 1.13, 9.6, 9.5)))
        big = f.cardiomegaly
        flat = 1 + 0.06 * (1 - a.inspiration)
        width = (1 + 0.045 * p.heart) * (1 + 0.42 * big) * flat
        floor = 0.5 * (self.tops[0] + self.tops[1])
        self.heart = Ellipsoid((2.1 + 1.5 * big, -2.8, floor + 1.9 + 0.4 * big),
                               (7.2 * width, 5.2 * (1 + 0.045 * p.heart) * (1 + 0.33 * big), 5.2 * (1 + 0.24 * big)),
                               turned(0, 28, -28))
        self.atria = Ellipsoid((-1.2 - 0.5 * big, 0.6 + 0.4 * big, floor + 3.6),
                               tuple(r * width for r in (3.7, 3.8, 4.6)))
        m = 1 + 1.15 * f.enlarged_cardiomediastinum
        self.mediastinum = Ellipsoid((0.1, 0.8, 9.0), (2.5 * m, 6.4, 19.0))
        old = 1 + 0.16 * p.aorta
        self.knob = Ellipsoid((2.3 * m, 1.6, 13.2), (1.8 * old * m**0.5, 3.0 * old, 1.8 * old))
        self.aorta = Ellipsoid((2.0 + 0.5 * p.aorta, 5.6, 3.0), (1.45 * old, 1.6 * old, 15.0))
        self.inside = (self.heart, self.atria, self.mediastinum, self.knob, self.aorta)
        self.fluid = [self._above_fluid(i) for i in (0, 1)]
        self.collapsed = [self._collapsed(i) for i in (0, 1)]
        self.hila = [np.array([side * 3.6, 1.4, 0.5 * floor + 7.6]) for side in SIDES]

    def _above_fluid(self, i: int) -> Ellipsoid | None:
        """The aerated lung over an effusion: its round bottom is the meniscus, higher at the walls."""
        s = self.findings.pleural_effusion[i]
        if not s:
            return None
        outer, top = self.shells[i][0], self.tops[i]
        low = top - 12 + 5.0 * s**0.5 + 12.5 * s       # of the meniscus, at its deepest
        back = -2.2 * s - 0.8 if self.acquisition.supine else -1.3
        radii = (outer.radii[0] * (1.42 - 0.26 * s), outer.radii[1] * (1.45 - 0.33 * s), 16.0)
        return Ellipsoid((outer.centre[0] * 0.93, outer.centre[1] + back, low + radii[2]), radii,
                         turned(-12 if self.acquisition.supine else -3))

    def _collapsed(self, i: int) -> Ellipsoid | None:
        """What a pneumothorax leaves of the lung: smaller, towards the hilum and the diaphragm."""
        s = self.findings.pneumothorax[i]
        if not s:
            return None
        outer, k = self.shells[i][0], 0.13 + 0.5 * s
        a, b, _ = outer.radii
        return Ellipsoid((outer.centre[0] - SIDES[i] * a * (0.75 * k - 0.03), outer.centre[1] + 1.0 * k,
                          -2.0 - 3.0 * k), ((1 - k) * a * 1.04, (1 - 0.6 * k) * b, 22.6 - 6.5 * k))

    def _trunk(self) -> None:
        """The outline: trunk, and what sticks out of it."""
        p, a = self.anatomy, self.acquisition
        fat, wide = 1.0 + 0.9 * np.tanh(0.6 * p.habitus), 1 + 0.05 * p.lung_width
        self.trunk = Ellipsoid((0, 1.0, -4), (15.6 * wide + 2.2 * fat, 10.4 + 1.5 * fat, 33))
        self.neck = Ellipsoid((0, 2.6, 27), (5.4 + 0.5 * fat, 6.0 + 0.4 * fat, 13))
        up = a.arms == "up"
        self.shoulders = Ellipsoid((0, 2.5, 19.5 if up else 15),
                                   ((16 if up else 21) * wide, 6.2 + 0.6 * fat, 7.2 + 0.4 * fat))
        self.neck_and_breasts = [self.neck]
        if not up:
            self.neck_and_breasts.append(Ellipsoid((0, 3.2, 19), (13.5, 5.4 + 0.4 * fat, 6.5)))
        self.upper_arms = []
        for side in SIDES:
            if p.breast:
                self.neck_and_breasts.append(Ellipsoid((side * 8.2, -7.6 - 1.1 * fat, 1.0 - 1.5 * p.breast), (
                    5.6 + 1.6 * p.breast, 2.4 + 1.9 * p.breast, 6.0 + 1.6 * p.breast), turned(12, 0, 18 * side)))
            if up:
                arm = Ellipsoid((side * 13.5, -9.5, 29), (4.2, 4.6, 14), turned(38, 0))
            elif a.arms == "down":
                arm = Ellipsoid((side * 21.5, 2.5, 4), (4.0, 4.4, 17), turned(0, -7 * side))
            else:
                arm = Ellipsoid((side * 23, 2.5, 4), (4.0, 4.4, 17), turned(0, -16 * side))
            self.upper_arms.append(arm)

    def in_lung(self, i: int, points: np.ndarray, rim: float = 0.97) -> np.ndarray:
        """(N,) whether points lie in the aerated lung of side i."""
        inside = np.logical_and.reduce([shell.depth(points) < rim for shell in self.shells[i]])
        for organ in (self.domes[i], *self.inside):
            inside &= organ.depth(points) > 1
        for rest in (self.fluid[i], self.collapsed[i]):
            if rest is not None:
                inside &= rest.depth(points) < 1
        return inside

    # bones and vessels

    def spine(self, z: np.ndarray) -> np.ndarray:
        """The axis of the vertebral bodies at heights z (N,) -> (N, 3)."""
        p = self.anatomy
        bend = (np.clip(z, -20, 26) - 6) / 16
        return np.stack([0.45 * p.scoliosis * np.sin(1.7 * bend + 0.5), 8.0 - (1.5 + 0.8 * p.kyphosis) * bend**2, z], 1)

    def ribs(self) -> list[Points]:
        """Twelve pairs. A rib leaves the spine to the side, turns at the angle and falls to the front."""
        rng = np.random.default_rng((self.anatomy.seed, 1))
        wide, tall = 1 + 0.05 * self.anatomy.lung_width, 1 + 0.04 * self.anatomy.lung_height
        k = np.arange(12)[:, None]
        head = (19.2 - 2.45 * k) * tall + 0.15 * rng.standard_normal((12, 1))
        level = np.maximum(head - 4.2, -2) + 2
        a = 14.0 * wide * np.sqrt(np.maximum(1 - (level / (25.5 * tall))**2, 0.12))
        b = 10.3 * np.sqrt(np.maximum(1 - (level / (27 * tall))**2, 0.14))
        end = np.deg2rad(148 - 22 * np.maximum(k - 6, 0))
        drop = np.where(k == 0, 4.2, np.where(k == 1, 6.5, 8.0)) + 0.25 * k
        angle = 0.13 + (end - 0.13) * np.linspace(0, 1, 110)                                   # (12, 110)
        fall = drop * np.where(k == 0, angle / 2.6, np.maximum((angle - 0.35) / 2.3, 0)**1.25)
        uneven = 0.12 * rng.standard_normal((2, 12, 1))
        found = []
        for i, side in enumerate(SIDES):
            path = np.stack([side * a * np.sin(angle)**0.85, 0.6 + b * np.cos(angle), head - fall + uneven[i]], 2)
            found += thorax_opacities.fractured(path, self.findings, i, BONE - SOFT)
        return found

    def shoulder_girdle(self) -> list[Points]:
        """Clavicles and shoulder blades."""
        parts = []
        lift = 1.2 if self.acquisition.arms == "down" else 0.0
        for side in SIDES:
            clavicle = smooth([(side * 1.6, -6.2, 15.6), (side * 6, -6.6, 17.0 - 0.4 * lift),
                               (side * 11, -2.6, 18.2 - lift), (side * 15.5, 0.6, 18.6 - lift)])
            parts.append(tube(clavicle, BONE - SOFT, 0.6, hollow=0.45))
            parts.append(self._scapula(side))
        return parts

    def columns(self, beam: Beam) -> np.ndarray:
        """Line integrals of what spine and sternum have more than soft tissue."""
        across = beam.turn[0]
        total = np.float32(0.28 * (BONE - SOFT)) * beam.column(self.spine, 1.6 + 0.5 * abs(across[0]),
                                                               1.6 + 2.0 * abs(across[1]))
        z = beam.height(8.0)
        phase = (z / 2.5) % 1.0
        discs = 1 - 0.34 * np.exp(-((phase - 0.5) / 0.11)**2) + 0.16 * np.exp(-((np.abs(phase - 0.5) - 0.22) / 0.06)**2)
        total *= discs.astype(np.float32)[:, None]

        def behind(z):
            return self.spine(z) + (0, 3.6, -1.0)

        spines = beam.column(behind, 0.35 + 1.3 * abs(across[1]), 1.4)
        spines *= (1 - 0.55 * np.cos(2 * np.pi * phase + 1))[:, None].astype(np.float32)
        window = 1 / (1 + np.exp(np.clip((np.abs(z - 6.5) - 8.5) / 0.5, -30, 30)))

        def breastbone(z):
            return np.stack([0 * z, -8.6 - 0.0075 * (9 - z) * abs(9 - z) / 2 + 0.11 * np.maximum(z - 4, 0), z], 1)

        sternum = beam.column(breastbone, 0.55 + 1.1 * abs(across[0]), 0.55 + 1.1 * abs(across[1]))
        sternum *= window[:, None].astype(np.float32)
        return total + np.float32(0.25 * (BONE - SOFT)) * spines + np.float32(0.33 * (BONE - SOFT)) * sternum

    def arms(self) -> list[tuple[Ellipsoid, float]]:
        """Shafts and heads of the upper arms' bones."""
        found = []
        for side, arm in zip(SIDES, self.upper_arms):
            found.append((Ellipsoid(arm.centre, (1.2, 1.2, arm.radii[2] * 0.9), arm.axes), 0.6 * (BONE - SOFT)))
            found.append((Ellipsoid((side * 17.2, 1.0, 16.0), (2.3, 2.3, 2.4)), 0.35 * (BONE - SOFT)))
        return found

    def _scapula(self, side: int) -> Points:
        """A thin plate at the back; the arms turn it out of the lungs or into them."""
        rng = np.random.default_rng(7)
        u, v = rng.random((2, 260))
        u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
        out = {"down": 0.0, "out": 2.6, "up": 4.5}[self.acquisition.arms]
        low, high, far = (np.array(x, float) for x in ((8.6 + out, 8.6, 1.5), (7.2 + 0.6 * out, 9.2, 14.5),
                                                       (15.2, 4.5, 15.5)))
        where = low + u[:, None] * (high - low) + v[:, None] * (far - low)
        edge = np.linspace(0, 1, 60)[:, None]
        where = np.concatenate([where, low + edge * (high - low), low + edge * (far - low), high + edge * (far - high)])
        return Points(where * (side, 1, 1), 0.016, 0.55, soft=True)

    def vessels(self) -> list[Points]:
        """Two trees from the hila to the pleura, in three calibres; wider and blurred in edema."""
        found = []
        wet = self.findings.edema
        for i in (0, 1):
            rng = np.random.default_rng((self.anatomy.seed, 2 + i))
            ball = rng.standard_normal((64, 3))
            ball *= (rng.uniform(0.5, 0.97, 64) / np.linalg.norm(ball, axis=1))[:, None]
            ball[:, 2] = ball[:, 2] * 0.36 + 0.22
            ends = self.shells[i][0].at(ball)
            hilum = self.hila[i] + rng.standard_normal((64, 3)) * (0.5, 0.9, 1.7)
            ends[:, 2] = np.maximum(ends[:, 2], self.tops[i] - 6)
            t = np.linspace(0, 1, 34)[:, None, None]
            trunk = hilum + 0.35 * (ends - hilum) * (0.5, 0.7, 1.25) + 0.5 * rng.standard_normal((64, 3))
            path = (1 - t)**2 * hilum + 2 * t * (1 - t) * trunk + t**2 * ends                       # (34, 64, 3)
            if self.collapsed[i] is not None:
                path = self.collapsed[i].at(0.92 * (path - self.shells[i][0].centre) @ self.shells[i][0].to_sphere.T
                                            * (1, 1, 1.35))
            step = np.linalg.norm(ends - hilum, axis=1) / 34
            calibre = 0.58 * (1 - t[..., 0])**0.9 * rng.random(64)**1.6 + 0.14                      # (34, 64)
            calibre = calibre * rng.uniform(0.7, 1.1, 64) * (1 + 0.35 * wet)
            where, ds, r = path.reshape(-1, 3), np.tile(step, 34), calibre.reshape(-1)
            kept = self.in_lung(i, where, 0.99)
            where, ds, r = where[kept], ds[kept], r[kept]
            for low, high in ((0, 0.14), (0.14, 0.28), (0.28, 2)):
                chosen = (r >= low) & (r < high)
                if chosen.any():
                    mean = float(np.sqrt((r[chosen]**2).mean()))
                    found.append(Points(where[chosen], self.contrast * ds[chosen] * (r[chosen] / mean)**2, mean))
        return found

    # the sum

    def attenuation(self, beam: Beam) -> tuple[np.ndarray, np.ndarray]:
        """Line integrals (H, W), and cm of lung (H, W)."""
        p, size = self.anatomy, np.float32(self.anatomy.size)
        trunk, shoulders = beam.through(self.trunk), beam.through(self.shoulders)
        soft = trunk.length + without(shoulders, [trunk])
        for part in (*self.neck_and_breasts, *self.upper_arms):
            found = beam.window(part)
            if found is not None:
                near, window = found
                soft[window] += without(near.through(part), [trunk[window], shoulders[window]])
        soft *= beam.step
        total = np.float32(SOFT) * soft
        lung_cm = np.zeros(beam.shape, np.float32)
        for i in (0, 1):
            self._add_lung(beam, i, trunk, total, lung_cm)
        if p.gas > 0.15:
            beam.add(total, Ellipsoid((6.3, -1.0, self.tops[1] - 2.6 - 1.5 * p.gas),
                                      (1.0 + 3.0 * p.gas, 2.6, 0.7 + 1.3 * p.gas)), -0.9 * SOFT)
        hard, open_ = self.columns(beam), self._windpipe(beam)
        total += (hard - np.float32(0.8 * SOFT) * open_) * np.minimum(soft, 1)
        total += beam.splat([*self.ribs(), *self.shoulder_girdle(), *self.bronchi(), *self.vessels(), *self.opacities,
                             *self.devices.points], self.acquisition.blur / p.size)
        for body, mu in [*self.arms(), *self.devices.bodies, *thorax_opacities.nodules(self)]:
            beam.add(total, body, mu)
        return np.maximum(total * size, 0), lung_cm * size

    def _add_lung(self, beam: Beam, i: int, trunk: Interval, total: np.ndarray, lung_cm: np.ndarray) -> None:
        """The lung of side i, and in a pneumothorax its air and the pleura's edge, in place of soft tissue."""
        found = beam.window(self.shells[i][1])
        if found is None:
            return
        near, window = found
        shell = near.through(self.shells[i][0]) & near.through(self.shells[i][1]) & trunk[window]
        if self.fluid[i] is not None:
            shell = shell & near.through(self.fluid[i])
        taken = [near.through(organ) for organ in (self.domes[i], *(self.inside[k] for k in TAKEN[i]))]
        step = near.step
        lung, density = without(shell, taken) * step, self.lung_mu
        if self.collapsed[i] is not None:
            whole, density = lung, 1.12 * self.lung_mu
            lung = without(shell & near.through(self.collapsed[i]), taken) * step
            edge = without(shell & near.through(self.collapsed[i].grown(0.12)), taken) * step - lung
            total[window] += np.float32(0.5 * SOFT) * edge - np.float32(SOFT) * (whole - lung)
        total[window] -= np.float32(SOFT - density) * lung
        lung_cm[window] += lung

    def _windpipe(self, beam: Beam) -> np.ndarray:
        """cm of air in the trachea."""
        def course(z):
            return np.stack([0.15 - 0.03 * (z - 10), 1.6 - 0.12 * (z - 10), z], 1)

        z = beam.height(1.0)
        open_ = (1 / (1 + np.exp(-np.clip((z - 10.2) / 0.35, -30, 30)))).astype(np.float32)[:, None]
        return beam.column(course, 0.85, 0.9) * open_

    def bronchi(self) -> list[Points]:
        """The air of the two main bronchi, in place of soft tissue."""
        return [tube(smooth([(0.1, 1.6, 10.6), (side * 1.8, 1.8, 9.0), tuple(self.hila[i])]), -0.8 * SOFT, 0.55)
                for i, side in enumerate(SIDES)]
