"""X-rays through simple bodies: exact chords of ellipsoids under a diverging beam, and points splatted on the detector.

Lengths are in cm. The body's axes: x to the patient's left, y to the back, z up. `Beam` places the body between a
point source and a flat detector; an image is seen as radiographs are: frontal ones as if one faced the patient, lateral
ones with the chest to the left.

Everything convex cuts a ray in one interval, so unions, intersections and differences of ellipsoids have exact lengths
at the cost of a few minima and maxima a pixel. Thin things (ribs, vessels, leads) are rows of points: their masses are
gathered on the detector and convolved with the projection of their cross-section.
"""

from copy import copy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# rows: the image's right, the direction of the beam, the image's top, in the body's axes
VIEWS = {"PA": ((1, 0, 0), (0, -1, 0), (0, 0, 1)), "AP": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
         "LATERAL": ((0, 1, 0), (1, 0, 0), (0, 0, 1)), "LL": ((0, 1, 0), (1, 0, 0), (0, 0, 1))}
THINNEST = 0.7  # pixels of radius: what is thinner is spread as wide, with the same mass
SIDES = (-1, 1) # x of the patient's right and left
MARGIN = 12     # pixels around the image where the splatted masses may still reach into it


@dataclass(frozen=True)
class Ellipsoid:
    """`centre` (3,), half axes `radii` (3,) and their directions, the columns of `axes` (3, 3)."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    axes: np.ndarray | None = None

    @property
    def to_sphere(self) -> np.ndarray:
        """(3, 3), turns the ellipsoid about its centre into the unit sphere."""
        axes = np.eye(3) if self.axes is None else self.axes
        return axes.T / np.asarray(self.radii)[:, None]

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) -> (N,): 0 in the centre, 1 on the surface, more outside."""
        return np.sqrt((((points - np.asarray(self.centre)) @ self.to_sphere.T)**2).sum(1))

    def at(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the unit sphere's frame -> the body's."""
        return np.asarray(self.centre) + points @ np.linalg.inv(self.to_sphere).T

    def grown(self, by: float) -> "Ellipsoid":
        """All half axes longer by so many cm."""
        return Ellipsoid(self.centre, tuple(r + by for r in self.radii), self.axes)


def turned(about_x: float = 0.0, about_y: float = 0.0, about_z: float = 0.0) -> np.ndarray:
    """Rotation (3, 3) by angles in degrees, first about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.deg2rad([about_x, about_y, about_z])) for f in (np.cos, np.sin))
    return (np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
            @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]))


class Interval:
    """The stretch [start, end] of every ray that lies in a convex body, (H, W) each; empty where end <= start."""

    __slots__ = ("start", "end")

    def __init__(self, start: np.ndarray, end: np.ndarray):
        self.start, self.end = start, end

    def __and__(self, other: "Interval") -> "Interval":
        return Interval(np.maximum(self.start, other.start), np.minimum(self.end, other.end))

    def __getitem__(self, window) -> "Interval":
        return Interval(self.start[window], self.end[window])

    @property
    def length(self) -> np.ndarray:
        """In units of the ray parameter: times `Beam.step` it is cm."""
        return np.maximum(self.end - self.start, 0)


def without(body: Interval, others: list[Interval]) -> np.ndarray:
    """How much of every ray lies in `body` and in none of the others, (H, W) in units of the ray parameter like
    `Interval.length`: inclusion and exclusion, exact."""
    total = body.length
    layer = [(-1, body, 0)]     # sign of the terms to come, intersection so far, the next body to intersect with
    while layer:
        sign, common, first = layer.pop()
        for k in range(first, len(others)):
            smaller = common & others[k]
            length = smaller.length
            if length.any():
                total = total + sign * length
                layer.append((-sign, smaller, k + 1))
    return np.maximum(total, 0)


class Beam:
    """A point source, a detector of `shape` (H, W) pixels of `pixel` cm, and where the body stands between them.

    distance  cm from the source to the detector
    gap       cm from the body's axis to the detector
    rotation  (3, 3) of the body about its origin; shift (2,) cm to the image's right and top
    """

    def __init__(self, view: str, shape: tuple[int, int], pixel: float, distance: float, gap: float,
                 rotation: np.ndarray | None = None, shift: tuple[float, float] = (0.0, 0.0)):
        self.shape, self.pixel, self.distance, self.gap = shape, pixel, distance, gap
        self.turn = np.asarray(VIEWS[view], float) @ (np.eye(3) if rotation is None else rotation)
        self.shift = np.array([shift[0], 0.0, shift[1]])
        self.u = ((np.arange(shape[1]) - (shape[1] - 1) / 2) * pixel).astype(np.float32)            # (W,) cm
        self.v = (((shape[0] - 1) / 2 - np.arange(shape[0])) * pixel).astype(np.float32)[:, None]   # (H, 1) cm
        self.uv = self.u * self.v
        self.step = np.sqrt(self.u**2 + self.v**2 + np.float32(distance**2))    # (H, W) cm per unit of ray parameter

    def place(self, points) -> np.ndarray:
        """Points (N, 3) of the body -> (N, 3): image's right, along the beam from the body's axis, image's top."""
        return np.asarray(points, float) @ self.turn.T + self.shift

    def project(self, points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points (N, 3) -> detector coordinates u and v (N,) in cm, and their magnification."""
        right, along, up = self.place(points).T
        size = self.distance / (self.distance - self.gap + along)
        return right * size, up * size, size

    def through(self, body: Ellipsoid) -> Interval:
        """The stretch of every ray within an ellipsoid."""
        # the ray is source + t (u, distance, v); in the frame where the body is the unit sphere: o + t w(u, v)
        sphere = body.to_sphere @ self.turn.T
        source = np.array([0.0, self.gap - self.distance, 0.0])
        o = sphere @ (source - self.place([body.centre])[0])
        right, along, up = sphere[:, 0], sphere[:, 1] * self.distance, sphere[:, 2]
        f = np.float32
        ww = ((f(right @ right) * self.u + f(2 * right @ along)) * self.u + f(along @ along)
              + (f(up @ up) * self.v + f(2 * up @ along)) * self.v + f(2 * right @ up) * self.uv)
        wo = f(right @ o) * self.u + (f(up @ o) * self.v + f(along @ o))
        # the discriminant (w o)^2 - w^2 (o^2 - 1): its large terms cancel here, in double precision
        def term(a, b):
            return (a @ o) * (b @ o) - (a @ b) * (o @ o - 1)

        inside = ((f(term(right, right)) * self.u + f(2 * term(right, along))) * self.u + f(term(along, along))
                  + (f(term(up, up)) * self.v + f(2 * term(up, along))) * self.v + f(2 * term(right, up)) * self.uv)
        middle = -wo / ww
        half = np.sqrt(np.maximum(inside, 0)) / ww
        return Interval(middle - half, middle + half)

    def window(self, body: Ellipsoid) -> tuple["Beam", tuple[slice, slice]] | None:
        """The part of the beam that an ellipsoid can be in, and its rows and columns; None where it misses it."""
        u, v, size = self.project([body.centre])
        half = self.turn @ np.linalg.inv(body.to_sphere)            # its box in the beam's frame
        right, along, up = np.sqrt((half**2).sum(1))
        size = max(size[0], self.distance / max(self.distance / size[0] - along, 1))
        slant = (size / self.project([body.centre])[2][0] - 1)
        right, up = size * right + abs(u[0]) * slant, size * up + abs(v[0]) * slant
        row, column = (self.shape[0] - 1) / 2 - v[0] / self.pixel, (self.shape[1] - 1) / 2 + u[0] / self.pixel
        rows = slice(max(int(row - up / self.pixel), 0), max(int(row + up / self.pixel) + 2, 0))
        columns = slice(max(int(column - right / self.pixel), 0), max(int(column + right / self.pixel) + 2, 0))
        part = copy(self)
        part.u, part.v = self.u[columns], self.v[rows]
        part.uv, part.step = self.uv[rows, columns], self.step[rows, columns]
        return (part, (rows, columns)) if part.uv.size else None

    def add(self, total: np.ndarray, body: Ellipsoid, mu: float) -> None:
        """Adds an ellipsoid's line integrals to those of the image, in place."""
        found = self.window(body)
        if found is not None:
            part, window = found
            total[window] += np.float32(mu) * part.through(body).length * part.step

    def column(self, curve, width: float, depth: float) -> np.ndarray:
        """cm of every ray within an upright elliptic column, taken as if the rays were level.

        curve(z) gives the column's axis as points (H, 3) at heights z (H,); `width` and `depth` are its half axes
        across and along the beam.
        """
        near = self.distance / (self.distance - self.gap + self.place([[0, 0, 0]])[0, 1])
        u, _, size = self.project(curve(self.v[:, 0] / near - self.shift[2]))
        across = (self.u - u[:, None].astype(np.float32)) / (size[:, None] * width).astype(np.float32)
        return np.float32(2 * depth) * np.sqrt(np.maximum(1 - across * across, 0))

    def height(self, y: float = 0.0) -> np.ndarray:
        """(H,) the body's z where the rows cross its axis, level rays assumed."""
        size = self.project([[0, y, 0]])[2][0]
        return self.v[:, 0] / size - self.shift[2]

    def splat(self, groups: list["Points"], blur: float = 0.0) -> np.ndarray:
        """Line integrals (H, W) of tubes and blobs; `blur` is the sigma in cm of a Gaussian on top."""
        grid = tuple(-(-(n + 2 * MARGIN) // 8) * 8 for n in self.shape)
        together: dict[tuple, list] = {}     # what has one kernel is convolved at once
        for group in groups:
            if len(group.where):
                u, v, size = self.project(group.where)
                exact = float(size.mean()) * group.radius / self.pixel
                step = np.log(1.2 if exact < 2 else 1.05)
                radius = round(max(float(np.exp(step * round(np.log(exact) / step))), THINNEST), 3)
                mass = np.broadcast_to(group.mass * (exact / radius)**2, len(u))
                together.setdefault((radius, group.hollow, group.soft), []).append((u, v, mass))
        total = np.zeros((grid[0], grid[1] // 2 + 1), np.complex64)
        for (radius, hollow, soft), parts in together.items():
            u, v, mass = (np.concatenate(part) for part in zip(*parts))
            kernel = gaussian(grid, radius) if soft else _disc(grid, radius)
            if hollow:
                kernel = kernel - np.float32(hollow) * _disc(grid, round(0.68 * radius, 3))
            total += np.fft.rfft2(self._gather(u, v, mass, grid)) * kernel
        sigma = round(blur / self.pixel, 1)
        if sigma:
            total *= gaussian(grid, sigma) * unit(sigma)
        image = np.fft.irfft2(total, grid)
        return image[MARGIN:MARGIN + self.shape[0], MARGIN:MARGIN + self.shape[1]].astype(np.float32)

    def _gather(self, u, v, mass, grid: tuple[int, int]) -> np.ndarray:
        """Masses at detector coordinates, each shared out to its four pixels of the grid."""
        column = u / self.pixel + (self.shape[1] - 1) / 2 + MARGIN
        row = (self.shape[0] - 1) / 2 - v / self.pixel + MARGIN
        kept = (column >= 0) & (column < grid[1] - 1) & (row >= 0) & (row < grid[0] - 1)
        row, column, mass = row[kept], column[kept], mass[kept]
        i, j = row.astype(int), column.astype(int)
        di, dj = row - i, column - j
        at, down, here = i * grid[1] + j, mass * di, mass * (1 - di)
        image = np.bincount(np.concatenate([at, at + 1, at + grid[1], at + grid[1] + 1]),
                            np.concatenate([here * (1 - dj), here * dj, down * (1 - dj), down * dj]), grid[0] * grid[1])
        return image.reshape(grid).astype(np.float32)


@dataclass(frozen=True)
class Points:
    """What is splatted: `where` (N, 3) cm, `mass` () or (N,) attenuation times cm, of discs with `radius` cm.

    For a tube of attenuation mu, give points ds apart the mass mu ds: the chord of every ray then comes out right. A
    `hollow` tube has so much less attenuation in its core; `soft` points are Gaussians of sigma `radius`, height 1.
    """

    where: np.ndarray
    mass: np.ndarray | float
    radius: float
    hollow: float = 0.0
    soft: bool = False


def tube(path: np.ndarray, mu: float, radius: float, step: float = 0.15, hollow: float = 0.0) -> Points:
    """A tube along the polyline `path` (K, 3)."""
    legs = np.linalg.norm(np.diff(path, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(legs)])
    count = max(int(along[-1] / step), 2)
    at = (np.arange(count) + 0.5) * along[-1] / count
    where = np.stack([np.interp(at, along, path[:, k]) for k in range(3)], 1)
    return Points(where, mu * along[-1] / count, radius, hollow)


def smooth(points, n: int = 24) -> np.ndarray:
    """A Catmull-Rom curve (n, 3) through the given points (K, 3)."""
    p = np.asarray(points, float)
    p = np.concatenate([[2 * p[0] - p[1]], p, [2 * p[-1] - p[-2]]])
    t = np.linspace(0, len(p) - 3, n)
    k = np.minimum(t.astype(int), len(p) - 4)
    s = (t - k)[:, None]
    a, b, c, d = p[k], p[k + 1], p[k + 2], p[k + 3]
    return 0.5 * (2 * b + (c - a) * s + (2 * a - 5 * b + 4 * c - d) * s**2 + (3 * b - 3 * c + d - a) * s**3)


@lru_cache(maxsize=400)
def _disc(grid: tuple[int, int], radius: float) -> np.ndarray:
    """Transform of a disc of height 1 and so many pixels' radius; its rim is a pixel wide, its mass exact."""
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in grid)
    distance = np.sqrt(rows[:, None]**2 + columns**2)
    image = np.clip(radius + 0.5 - distance, 0, 1)
    image *= np.pi * radius**2 / max(image.sum(), 1e-9)
    return np.fft.rfft2(image).real.astype(np.float32)


def unit(sigma: float) -> float:
    """What a Gaussian of height 1 must be multiplied by to have mass 1."""
    return 1 / max(2 * np.pi * sigma**2, 1e-9)


@lru_cache(maxsize=400)
def gaussian(grid: tuple[int, int], sigma: float) -> np.ndarray:
    """Transform of a Gaussian of height 1 and so many pixels' sigma."""
    rows, columns = np.fft.fftfreq(grid[0]), np.fft.rfftfreq(grid[1])
    f2 = rows[:, None]**2 + columns**2
    return (2 * np.pi * sigma**2 * np.exp(-2 * np.pi**2 * sigma**2 * f2)).astype(np.float32)
