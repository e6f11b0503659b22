"""A painter of birds: posed, anti-aliased silhouettes with coloured parts, light and background. No downloads.

`paint` makes the picture of a `Bird` and says how much of it every part takes up, so that labels and captions can be
made from what is seen and nothing else. Geometry lives in the bird's own frame: the body is about 1 long, x points
forward, y up; the painter tilts, mirrors, scales and shifts it.
"""

from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from studies.cub.standin.species import BEAKS, COLOURS, Bird

OVERSAMPLE = 4      # outlines are drawn this much larger and averaged down
LONG_SIDE = 96      # pixels of a picture's longer side


@dataclass
class Picture:
    """`image` as bytes (H, W, 3); `shares`: part -> share of the bird's visible area; `pixels`: its area."""

    image: np.ndarray
    shares: dict[str, float]
    pixels: float


def paint(bird: Bird, draw: Random) -> Picture:
    """The picture of a bird: background, perch, parts from back to front, light, grain."""
    aspect = draw.choice((4 / 3, 4 / 3, 3 / 2, 1.0, 3 / 4))
    width, height = (LONG_SIDE, round(LONG_SIDE / aspect)) if aspect >= 1 else (round(LONG_SIDE * aspect), LONG_SIDE)
    outlines = _outlines(bird, draw)
    canvas = Canvas(bird, draw, width, height)
    canvas.aim(outlines)
    canvas.background()
    for name, part, points in outlines:
        if name == "ground":
            canvas.perch()
        elif name == "water":
            canvas.water()
        else:
            canvas.add(name, part, points)
    return canvas.finish()


def _outlines(bird: Bird, draw: Random) -> list[tuple]:
    """(name, part whose colour it has, outline (N, 2) in the bird's frame) from back to front."""
    s, d = bird.species, bird.species.depth
    body = _smooth([(-0.5, 0.02), (-0.28, 0.17 * d), (0.08, 0.27 * d), (0.36, 0.22 * d), (0.5, 0.04), (0.4, -0.2 * d),
                    (0.05, -0.31 * d), (-0.3, -0.17 * d)])
    belly = _smooth([(-0.5, -0.03), (-0.1, -0.02), (0.25, 0.02), (0.6, 0.1), (0.6, -0.3 * d), (0.05, -0.42 * d),
                     (-0.4, -0.3 * d)])
    breast = _smooth([(0.2, 0.02), (0.42, 0.16 * d), (0.62, 0.1), (0.5, -0.22 * d), (0.28, -0.3 * d),
                      (0.18, -0.14 * d)])
    width, spread = draw.uniform(0.05, 0.09), draw.uniform(0.06, 0.17)
    end, notch = -0.42 - s.tail_length, draw.choice((0.0, 0.09, -0.06))
    tail = np.array([(-0.36, width), (end, spread - 0.03), (end + notch, -0.02), (end, -spread - 0.03),
                     (-0.36, -width)])
    hx, hy = 0.42 + 0.4 * s.neck, 0.27 * d + 0.07 + s.neck
    neck = _smooth([(0.12, 0.22 * d), (hx - 0.8 * s.head, hy - 0.02), (hx + 0.75 * s.head, hy - 0.05), (0.5, 0.02),
                    (0.3, -0.04)])
    gaze = draw.uniform(-0.35, 0.3)

    def on_head(points):
        """From the head's own frame, radius 1, to the bird's."""
        cos, sin = np.cos(gaze), np.sin(gaze)
        return np.asarray(points) @ np.array([[cos, sin], [-sin, cos]]) * s.head + (hx, hy)

    length, half, droop = (np.array(BEAKS[s.beak]) / s.head * (0.9 + 0.2 * draw.random())).tolist()
    beak = _smooth([(0.8, half), (0.9 + 0.5 * length, half * 0.75), (0.95 + length, -droop - 0.02),
                    (0.9 + 0.5 * length, -half * 0.75), (0.8, -half)], closed=False)
    skull = _ellipse(0, 0, 1.08, 0.96)
    crown = _smooth([(-0.98, 0.1), (-0.9, 0.7), (-0.1, 1.15), (0.8, 0.75), (0.95, 0.28), (0, 0.34)])
    throat = _smooth([(0.95, -0.22), (0.2, -0.3), (-0.35, -0.85), (0.0, -1.5), (0.75, -1.2), (1.1, -0.7)])
    crest = [(-0.2, 0.8), (-1.1, 1.75), (-0.95, 0.45)]

    found = [("ground", None, None)] if bird.pose in ("perched", "standing") else []
    if bird.pose == "flying":
        lift = draw.uniform(0.75, 1.15)
        near = _smooth([(0.24, 0.08), (0.3, 0.45 * lift), (0.02, 0.95 * lift), (-0.42, 1.3 * lift),
                        (-0.36, 0.8 * lift), (-0.44, 0.42 * lift), (-0.3, 0.03)])
        far = _smooth([(0.3, 0.1), (0.5, 0.45 * lift), (0.55, 1.1 * lift), (0.28, 0.7 * lift), (0.08, 0.1)])
        found.append(("far wing", "wings", far))
    else:
        sag = draw.uniform(-0.05, 0.03)
        near = _smooth([(0.3, 0.08), (0.12, 0.19 * d), (-0.22, 0.14 * d), (-0.55 - 0.3 * s.tail_length, sag),
                        (-0.25, -0.10 * d), (0.08, -0.14 * d), (0.27, -0.06)])
    found.append(("tail", "tail", tail))
    if bird.pose in ("perched", "standing"):
        found.append(("legs", "legs", None))
    if s.crest:
        found.append(("crest", "crown", on_head(crest)))
    found += [("body", "back", body), ("belly", "belly", belly), ("breast", "breast", breast), ("neck", "head", neck),
              ("head", "head", on_head(skull)), ("throat", "throat", on_head(throat)),
              ("crown", "crown", on_head(crown)),
              ("wing", "wings", near), ("beak", "beak", on_head(beak))]
    eye = on_head(_ellipse(0.38, 0.16, 0.2, 0.2))
    if s.eye_ring:
        found.append(("ring", None, on_head(_ellipse(0.38, 0.16, 0.33, 0.33))))
    found.append(("eye", "eye", eye))
    return found + ([("water", None, None)] if bird.pose == "swimming" else [])


class Canvas:
    """One picture in the making: colour (H, W, 3) in [0, 1], and how much of each pixel each part owns."""

    def __init__(self, bird: Bird, draw: Random, width: int, height: int):
        self.bird, self.draw, self.width, self.height = bird, draw, width, height
        self.owned: dict[str, np.ndarray] = {}
        self.covered = np.zeros((height, width), np.float32)
        self.tilt = draw.uniform(*{"perched": (0.15, 0.85), "standing": (0.0, 0.5), "swimming": (-0.05, 0.15),
                                   "flying": (-0.3, 0.3)}[bird.pose])
        self.mirror = draw.random() < 0.5
        angle = draw.uniform(-2.6, -0.5)                    # of the light, from above
        self.light = np.cos(angle), np.sin(angle)
        # in the order of the parts: that of a set would differ from process to process, and the draws with it
        self.tone = {name: self._tone(COLOURS[name]) for name in dict.fromkeys(bird.colours.values())}

    def _tone(self, rgb) -> np.ndarray:
        """A named colour as this individual has it: a little lighter or darker, a little off."""
        level = self.draw.uniform(-0.05, 0.05)
        return np.clip([c / 255 + level + self.draw.uniform(-0.025, 0.025) for c in rgb], 0, 1).astype(np.float32)

    def aim(self, outlines: list[tuple]) -> None:
        """Sets scale and place so that the whole bird is in the picture, not always in its middle."""
        d = self.draw
        feet = [(0.0, -0.42 * self.bird.species.depth)] if self.bird.pose in ("perched", "standing") else []
        self.scale, self.centre = 1.0, (0.0, 0.0)
        extent = self._place(np.concatenate([points for *_, points in outlines if points is not None]
                                            + ([feet] if feet else [])))
        low, high = extent.min(0), extent.max(0)
        size = np.array([self.width, self.height])
        self.scale = d.uniform(0.68, 0.94) * float(np.min(size / (high - low)))
        room = size - self.scale * (high - low)
        corner = room * (0.5 + d.uniform(-0.3, 0.3), 0.5 + d.uniform(-0.25, 0.25))
        self.centre = tuple(corner - self.scale * low)

    def background(self) -> None:
        d, kind = self.draw, self.bird.pose
        palettes = {"foliage": ((70, 100, 50), (140, 160, 90)), "sky": ((150, 185, 215), (215, 228, 238)),
                    "overcast": ((190, 194, 198), (224, 226, 228)), "earth": ((120, 100, 75), (180, 160, 128)),
                    "shade": ((40, 48, 40), (88, 92, 76)), "water": ((70, 105, 125), (150, 175, 188))}
        if kind == "swimming":
            name = "water"
        elif kind == "flying":
            name = d.choice(("sky", "sky", "overcast", "water"))
        else:
            name = d.choice(("foliage", "foliage", "sky", "overcast", "earth", "shade"))
        low, high = (np.array(c, np.float32) / 255 for c in palettes[name])
        rough = self._noise(d.choice((3, 4, 6)), 3 if kind == "swimming" else 1)
        fall = np.linspace(d.uniform(0, 1), d.uniform(0, 1), self.height, dtype=np.float32)[:, None]
        mix = np.clip(0.55 * rough + 0.45 * fall, 0, 1)[..., None]
        self.image = low + (high - low) * mix
        self.image *= 1 + 0.12 * (self._noise(9, 3 if name == "water" else 1)[..., None] - 0.5)
        self.water_colour = low * 0.6 + high * 0.4

    def perch(self) -> None:
        """A branch under the bird, or ground."""
        d, w, h = self.draw, self.width, self.height
        feet = self._place([(0.0, -0.31 * self.bird.species.depth - 0.12)])[0]
        self.feet_y = y = min(feet[1], h * 0.94)
        if self.bird.pose == "standing":
            mask = self._mask([(0, y), (w, y + d.uniform(-3, 3)), (w, h), (0, h)])
            colour = d.choice(((150, 130, 98), (92, 104, 58), (196, 190, 176), (120, 116, 110)))
            texture = 1 + 0.3 * (self._noise(16, 2) - 0.5)
        else:
            slope, thick = d.uniform(-0.18, 0.18), d.uniform(1.5, 4.0)
            ends = [(0, y - slope * feet[0]), (w, y + slope * (w - feet[0]))]
            mask = self._mask([*ends, (w, ends[1][1] + thick * d.uniform(0.7, 1.3)), (0, ends[0][1] + thick)])
            colour = d.choice(((92, 72, 54), (120, 104, 86), (70, 62, 52)))
            texture = 1 + 0.5 * (self._noise(20, 1) - 0.5)
        self._blend(mask, np.clip(np.float32(colour) / 255 * texture[..., None], 0, 1))

    def add(self, name: str, part: str | None, points) -> None:
        """Paints one outline in its part's colour and books the pixels it takes from what lies below."""
        d, body = self.draw, self.covered
        if name == "legs":
            mask = self._legs()
        else:
            mask = self._mask(self._place(points))
        if name in ("belly", "breast"):
            mask = mask * self.owned["back"] if name == "belly" else mask * (self.owned["back"] + self.owned["belly"])
        if name in ("crown", "throat"):
            mask = mask * self.owned["head"]
        if name == "ring":
            self._blend(mask * body, np.float32(0.93))
            return
        colour = self.tone[self.bird.colours[part]] * (0.75 if name == "far wing" else 1.0)
        texture = np.float32(1.0)
        if name in ("body", "belly", "head", "neck", "crest"):
            texture = 1 + 0.16 * (self._noise(24, 1) - 0.5)
        if name == "wing":
            shadow = _blur(mask, 1.6) * body
            self.image *= 1 - 0.3 * (shadow * (1 - mask))[..., None]
            texture = self._feathers(mask)
        if self.bird.colours[part] == "iridescent":  # changes its hue over the bird
            colour = colour + np.float32([0.25, -0.05, 0.2]) * (self._noise(5, 1)[..., None] - 0.4)
        self._blend(mask, np.clip(colour * np.asarray(texture)[..., None], 0, 1))
        for other in self.owned:
            self.owned[other] = self.owned[other] * (1 - mask)
        self.owned[part] = self.owned.get(part, 0) + mask
        self.covered = np.maximum(body, mask)
        if name == "breast" and self.bird.species.pattern != "solid":
            self._marks(mask)
        if name == "wing" and self.bird.species.wing_bars:
            self._wing_bars(mask)
        if name == "eye" and d.random() < 0.9:  # a glint
            x, y = self._place(points).mean(0)
            self._blend(self._mask(_ellipse(x - 0.4, y - 0.5, 0.6, 0.6)) * mask, np.float32(0.95))

    def water(self) -> None:
        """Water up to the waterline, and a faint reflection below it."""
        y = self._place([(0.0, -0.13 * self.bird.species.depth)])[0, 1]
        mask = self._mask([(0, y), (self.width, y), (self.width, self.height), (0, self.height)])
        below = np.arange(self.height)
        mirrored = np.clip(np.round(2 * y - below).astype(int), 0, self.height - 1)
        reflection = self.image[mirrored] * 0.35 + self.water_colour * 0.65
        self._blend(mask, reflection * (1 + 0.16 * (self._noise(14, 4) - 0.5))[..., None])
        for part in self.owned:
            self.owned[part] = self.owned[part] * (1 - mask)
        self.covered = self.covered * (1 - mask)

    def finish(self) -> Picture:
        """Light on the round of the bird, the light's own colour and strength, grain."""
        d, bird = self.draw, np.clip(self.covered, 0, 1)
        slope_y, slope_x = np.gradient(_blur(bird, 0.07 * self.scale + 1.0))
        shade = 1 - (slope_x * self.light[0] + slope_y * self.light[1]) * self.scale * 0.14 * d.uniform(0.6, 1.4)
        self.image = self.image * (1 + (np.clip(shade, 0.5, 1.35) - 1) * bird)[..., None]
        warmth, level = d.uniform(-0.06, 0.06), d.uniform(0.82, 1.1)
        image = self.image * np.float32([level * (1 + warmth), level, level * (1 - warmth)])
        image = image + (self._bytes(self.height, self.width, 1) - 0.5) * d.uniform(0.01, 0.05)
        if self.bird.grey:
            image = image @ np.float32([0.299, 0.587, 0.114])[:, None].repeat(3, 1)
        areas = {part: float(np.sum(owned)) for part, owned in self.owned.items()}
        total = max(sum(areas.values()), 1e-6)
        pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
        return Picture(pixels, {part: area / total for part, area in areas.items()}, total)

    # the brushes

    def _place(self, points) -> np.ndarray:
        """From the bird's frame to pixels."""
        x, y = np.asarray(points, float).T
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        x, y = x * cos - y * sin, x * sin + y * cos
        x = -x if self.mirror else x
        return np.stack([self.centre[0] + self.scale * x, self.centre[1] - self.scale * y], 1)

    def _mask(self, points) -> np.ndarray:
        """How much of each pixel lies inside a polygon in pixel coordinates, (H, W) in [0, 1]."""
        big = Image.new("L", (self.width * OVERSAMPLE, self.height * OVERSAMPLE))
        ImageDraw.Draw(big).polygon([(float(x) * OVERSAMPLE, float(y) * OVERSAMPLE) for x, y in points], fill=255)
        return np.asarray(big.reduce(OVERSAMPLE), np.float32) / 255

    def _blend(self, mask: np.ndarray, colour) -> None:
        self.image = self.image + mask[..., None] * (colour - self.image)

    def _bytes(self, *shape: int) -> np.ndarray:
        count = int(np.prod(shape))
        return np.frombuffer(self.draw.randbytes(count), np.uint8).reshape(shape).astype(np.float32) / 255

    def _noise(self, cells: int, stretch: int) -> np.ndarray:
        """Smooth noise (H, W) in [0, 1], `cells` blobs across, `stretch` times as wide as high."""
        rough = Image.fromarray(np.frombuffer(self.draw.randbytes(cells * stretch * cells), np.uint8).reshape(
            cells * stretch, cells))
        return np.asarray(rough.resize((self.width, self.height), Image.Resampling.BICUBIC), np.float32) / 255

    def _legs(self) -> np.ndarray:
        mask = np.zeros((self.height, self.width), np.float32)
        for x in (0.05, -0.1):
            top = self._place([(x, -0.2 * self.bird.species.depth)])[0]
            foot = top[0] + self.draw.uniform(-1.5, 1.5), self.feet_y + 0.8
            half = max(0.022 * self.scale, 0.55)
            mask = np.maximum(mask, self._mask([(top[0] - half, top[1]), (top[0] + half, top[1]),
                                                (foot[0] + half, foot[1]), (foot[0] - half, foot[1])]))
        return mask

    def _feathers(self, mask: np.ndarray) -> np.ndarray:
        """Darker lines along the wing."""
        y, x = np.mgrid[:self.height, :self.width].astype(np.float32)
        tilt = self.tilt * (-1 if self.mirror else 1) + self.draw.uniform(0.1, 0.5)
        across = (x * np.sin(tilt) + y * np.cos(tilt)) / self.scale
        return 1 - 0.14 * (0.5 + 0.5 * np.sin(across * self.draw.uniform(60, 90))) - 0.1 * (1 - _blur(mask, 2.0))

    def _marks(self, mask: np.ndarray) -> None:
        """Spots, or streaks from top to bottom, in a darker tone on the breast."""
        if self.bird.species.pattern == "spotted":
            noise = self._noise(26, 1)
        else:
            across = self._noise(30, 1).mean(0)
            noise = np.broadcast_to((across - across.min()) / max(float(np.ptp(across)), 1e-6), mask.shape)
        self._blend(mask * np.clip((noise - 0.58) * 6, 0, 1) * 0.6, self.image * 0.25)

    def _wing_bars(self, mask: np.ndarray) -> None:
        for x in (-0.02, -0.14):
            bar = self._mask(self._place([(x, 0.3), (x + 0.05, 0.3), (x - 0.03, -0.3), (x - 0.08, -0.3)]))
            self._blend(bar * mask * 0.85, np.float32(0.9))


def _blur(mask: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray((np.clip(mask, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def _ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + a * np.cos(angle), y + b * np.sin(angle)], 1)


@cache
def _hermite(n: int = 7) -> np.ndarray:
    t = np.linspace(0, 1, n, endpoint=False)[:, None]
    return 0.5 * np.concatenate([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3,
                                 t**3 - t**2], 1)


def _smooth(points, closed: bool = True) -> np.ndarray:
    """A Catmull-Rom curve through the points; open ones keep their ends."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    return np.concatenate([_hermite() @ p[i:i + 4] for i in range(len(p) - 3)] + ([] if closed else [p[-1:]]))
