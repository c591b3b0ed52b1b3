"""Draws the demo's landscapes: a view and a random generator go in, JPEG bytes of 96 x 96 pixels come out.

Everything is drawn at three times the size and scaled down. The view decides what is there; the generator
decides only where, how large and in which shade, so nothing in a picture tells more than its view.
"""

import io
import math

import numpy as np
from PIL import Image, ImageDraw

SIZE_PX = 96
_SCALE = 3
_CANVAS = SIZE_PX * _SCALE
_SLOTS = (0.15, 0.38, 0.62, 0.85)  # where things may stand, as a fraction of the width

_TENT_COLOURS = {
    "red": (214, 45, 48),
    "green": (38, 150, 70),
    "violet": (136, 66, 190),
    "blue": (36, 98, 214),
    "yellow": (246, 196, 30),
}
_SKY = {False: ((84, 158, 228), (205, 230, 248)), True: ((10, 14, 44), (46, 42, 92))}  # top, horizon
_GROUND = {
    "meadow": ((126, 184, 84), (86, 146, 62)),
    "sea": ((52, 128, 170), (22, 84, 132)),
    "city": ((164, 160, 156), (138, 134, 132)),
}
_DISC = (250, 238, 170)
_BLOB = ((196, 84, 52), (240, 232, 214))  # body, cabin: one pair for boats and cars alike


def draw_jpeg(view, rng: np.random.Generator, quality: int = 92) -> bytes:
    """Draws one view and returns JPEG bytes, RGB, 96 x 96 pixels."""
    buffer = io.BytesIO()
    draw_picture(view, rng).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def draw_picture(view, rng: np.random.Generator) -> Image.Image:
    """Draws one view of `tfrecords.sources.demo` as an RGB image of 96 x 96 pixels."""
    brush = _Brush(view, rng)
    brush.sky()
    brush.distance()
    brush.ground()
    brush.foreground()
    return brush.finished()


class _Brush:
    """One picture on its way: back to front, each method draws one depth."""

    def __init__(self, view, rng: np.random.Generator):
        self.view, self.rng = view, rng
        self.horizon = _CANVAS * rng.uniform(0.47, 0.55)
        self.shade = rng.uniform(0.9, 1.06) * (0.5 if view.night else 1.0)
        self.image = Image.new("RGB", (_CANVAS, _CANVAS))
        self.draw = ImageDraw.Draw(self.image)
        self.slots = [_CANVAS * (x + rng.uniform(-0.03, 0.03)) for x in rng.permutation(_SLOTS)]

    def sky(self) -> None:
        top, low = (np.array(colour) * self.rng.uniform(0.92, 1.05) for colour in _SKY[self.view.night])
        self._gradient(0, self.horizon + 2, top, low)
        disc_x, mark_x, *_ = _CANVAS * self.rng.permutation([0.2, 0.5, 0.8])
        if self.view.rainbow:
            self._rainbow()
        if not self.view.clouds and self.view.night:
            self._stars()
        if self.view.clouds:
            self._clouds()
        if self.view.disc:
            self._disc(disc_x + self._jitter(0.05), _CANVAS * self.rng.uniform(0.11, 0.2))
        self.wings_at = (mark_x + self._jitter(0.06), _CANVAS * self.rng.uniform(0.22, 0.36))

    def distance(self) -> None:
        if self.view.mountain:
            self._mountains()
        if self.view.scene == "city":
            self._skyline()

    def ground(self) -> None:
        near, far = (np.array(colour) * self.shade for colour in reversed(_GROUND[self.view.scene]))
        self._gradient(self.horizon, _CANVAS, far, near)
        if self.view.scene == "sea":
            self._waves()
        if self.view.road:
            self._road()

    def foreground(self) -> None:
        x = iter(self.slots)
        tent_x = next(x)
        if self.view.lighthouse:
            self._lighthouse(next(x), self.horizon + _CANVAS * 0.08)
        if self.view.tree:
            for _ in range(self.rng.integers(1, 3)):
                self._tree(next(x), self.horizon + _CANVAS * self.rng.uniform(0.05, 0.13))
        if self.view.tent:
            self._tent(tent_x, _CANVAS * self.rng.uniform(0.74, 0.77))
        if self.view.wings:  # last, lest a mountain, a tower or a lighthouse hides what is labelled
            self._wings(*self.wings_at)
        if self.view.blob:
            self._blob(_CANVAS * self.rng.uniform(0.15, 0.85), _CANVAS * self.rng.uniform(0.88, 0.92))

    def finished(self) -> Image.Image:
        small = self.image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX)
        grain = self.rng.normal(0, 2.5, (SIZE_PX, SIZE_PX, 1))
        pixels = np.clip(np.asarray(small, np.float32) + grain, 0, 255)
        return Image.fromarray(pixels.astype(np.uint8))

    # What stands in the sky

    def _stars(self) -> None:
        for _ in range(self.rng.integers(22, 36)):
            x, y = self.rng.uniform(0, _CANVAS), self.rng.uniform(0, self.horizon * 0.9)
            radius, light = self.rng.uniform(1.5, 3.2), int(self.rng.uniform(190, 255))
            self._circle(x, y, radius, (light, light, min(255, light + 10)))

    def _clouds(self) -> None:
        light = np.array((118, 122, 148) if self.view.night else (246, 247, 250))
        for _ in range(self.rng.integers(3, 5)):
            x, y = self.rng.uniform(0, _CANVAS), self.rng.uniform(0.06, 0.3) * _CANVAS
            width = self.rng.uniform(0.1, 0.17) * _CANVAS
            colour = self._colour(light * self.rng.uniform(0.92, 1.0), shaded=False)
            for offset, size in ((-0.8, 0.5), (-0.3, 0.75), (0.3, 0.68), (0.85, 0.45)):
                height = width * size * 0.55
                box = (x + offset * width - width * size * 0.7, y - height)
                self.draw.ellipse((*box, box[0] + width * size * 1.4, y + height * 0.8), fill=colour)

    def _disc(self, x: float, y: float) -> None:
        radius = _CANVAS * self.rng.uniform(0.055, 0.07)
        self._circle(x, y, radius, _DISC)

    def _rainbow(self) -> None:
        x, radius = _CANVAS * self.rng.uniform(0.35, 0.65), _CANVAS * self.rng.uniform(0.36, 0.44)
        for colour in (
            (226, 72, 64),
            (240, 150, 60),
            (246, 220, 84),
            (98, 190, 98),
            (76, 122, 214),
            (138, 84, 190),
        ):
            box = (x - radius, self.horizon - radius, x + radius, self.horizon + radius)
            self.draw.arc(box, 180, 360, fill=colour, width=6)
            radius -= 6

    def _wings(self, x: float, y: float) -> None:
        span, width = _CANVAS * self.rng.uniform(0.055, 0.07), 7
        colour = (216, 216, 224) if self.view.night else (44, 46, 58)
        tilt = self._jitter(0.012)
        points = ((x - span, y - span * 0.45 + tilt), (x, y), (x + span, y - span * 0.45 - tilt))
        self.draw.line(points, fill=colour, width=width, joint="curve")
        self._circle(x, y + 1, width * 0.8, colour)

    # What stands far away

    def _mountains(self) -> None:
        for _ in range(self.rng.integers(2, 4)):
            x, height = self.rng.uniform(0.1, 0.9) * _CANVAS, _CANVAS * self.rng.uniform(0.2, 0.3)
            half, top = height * self.rng.uniform(0.8, 1.05), self.horizon - height
            rock = self._colour(np.array((118, 112, 132)) * self.rng.uniform(0.85, 1.05))
            self.draw.polygon(
                ((x - half, self.horizon + 3), (x, top), (x + half, self.horizon + 3)), fill=rock
            )
            snow = self._colour(np.array((238, 242, 248)), at_least=0.75)
            cap = 0.3
            self.draw.polygon(
                (
                    (x - half * cap, top + height * cap),
                    (x, top),
                    (x + half * cap, top + height * cap),
                    (x + half * cap * 0.3, top + height * cap * 0.72),
                    (x - half * cap * 0.25, top + height * cap * 1.1),
                ),
                fill=snow,
            )

    def _skyline(self) -> None:
        x = -self.rng.uniform(0, 12)
        while x < _CANVAS:
            width, height = self.rng.uniform(24, 44), _CANVAS * self.rng.uniform(0.08, 0.25)
            top = self.horizon - height
            wall = self._colour(np.array((150, 140, 146)) * self.rng.uniform(0.65, 1.1))
            self.draw.rectangle((x, top, x + width, self.horizon + 3), fill=wall)
            self._windows(x, top, width)
            x += width + self.rng.uniform(0, 4)

    def _windows(self, left: float, top: float, width: float) -> None:
        for row in range(int((self.horizon - top) // 12)):
            for column in range(int(width // 11)):
                if self.rng.random() < 0.7:
                    x, y = left + 5 + column * 11, top + 5 + row * 12
                    glass = (252, 214, 120) if self.view.night else (92, 112, 140)
                    self.draw.rectangle((x, y, x + 5, y + 6), fill=glass)

    # What lies on the ground

    def _waves(self) -> None:
        for _ in range(16):
            x, y = self.rng.uniform(0, _CANVAS), self.rng.uniform(self.horizon + 8, _CANVAS)
            length, crest = self.rng.uniform(14, 34), self._colour(np.array((150, 200, 222)))
            self.draw.arc((x, y, x + length, y + 9), 200, 340, fill=crest, width=3)

    def _road(self) -> None:
        top, bottom = _CANVAS * 0.83, _CANVAS * 0.975
        asphalt = self._colour(np.array((84, 84, 90)), at_least=0.55)
        self.draw.rectangle((0, top, _CANVAS, bottom), fill=asphalt)
        paint, middle = self._colour(np.array((236, 232, 214)), at_least=0.7), (top + bottom) / 2
        for x in range(-int(self.rng.integers(0, 36)), _CANVAS, 36):
            self.draw.rectangle((x, middle - 2, x + 18, middle + 2), fill=paint)

    # What stands near

    def _tree(self, x: float, base: float) -> None:
        size = _CANVAS * self.rng.uniform(0.07, 0.095)
        trunk = self._colour(np.array((104, 74, 48)))
        leaves = np.array((38, 104, 48)) * self.rng.uniform(0.8, 1.15)
        self.draw.rectangle((x - size * 0.14, base - size, x + size * 0.14, base), fill=trunk)
        for dx, dy, grow in ((-0.45, -1.3, 0.7), (0.45, -1.3, 0.7), (0.0, -1.85, 0.8)):
            self._circle(x + dx * size, base + dy * size, size * grow, self._colour(leaves))

    def _lighthouse(self, x: float, base: float) -> None:
        half, height = _CANVAS * 0.03, _CANVAS * self.rng.uniform(0.26, 0.31)
        rock = self._colour(np.array((112, 104, 98)))
        self.draw.ellipse((x - half * 2.6, base - half * 0.9, x + half * 2.6, base + half * 0.9), fill=rock)
        for band in range(5):
            colour = ((238, 236, 232), (206, 58, 52))[band % 2]
            low, high = base - height * band / 5, base - height * (band + 1) / 5
            taper = 1 - 0.07 * band
            self.draw.rectangle(
                (x - half * taper, high, x + half * taper, low), fill=self._colour(colour, 0.7)
            )
        lamp = (255, 240, 150) if self.view.night else (90, 100, 116)
        self.draw.rectangle((x - half * 0.7, base - height - 10, x + half * 0.7, base - height), fill=lamp)

    def _tent(self, x: float, base: float) -> None:
        half, wall = _CANVAS * self.rng.uniform(0.115, 0.135), _CANVAS * 0.09
        roof = _CANVAS * self.rng.uniform(0.09, 0.11)
        if self.view.scene == "sea":  # on a raft
            self.draw.rectangle(
                (x - half * 1.2, base - 4, x + half * 1.2, base + 8), fill=self._colour((128, 92, 58))
            )
        stripes, cloth = 8, ((246, 244, 238), _TENT_COLOURS[self.view.tent])
        for stripe in range(stripes):
            left, right = (x - half + 2 * half * edge / stripes for edge in (stripe, stripe + 1))
            colour = self._colour(cloth[stripe % 2], at_least=0.85)
            self.draw.rectangle((left, base - wall, right, base), fill=colour)
            self.draw.polygon(
                ((left, base - wall), (right, base - wall), (x, base - wall - roof)), fill=colour
            )
        flap = self._colour(np.array(cloth[1]) * 0.55, at_least=0.8)
        self.draw.polygon(((x - 9, base), (x, base - wall * 0.8), (x + 9, base)), fill=flap)
        if self.view.pennant:
            top = base - wall - roof
            self.draw.line(((x, top), (x, top - 30)), fill=self._colour((200, 190, 170), 0.85), width=4)
            self.draw.polygon(
                ((x, top - 32), (x + 32, top - 21), (x, top - 10)),
                fill=self._colour(_TENT_COLOURS[self.view.pennant], 0.95),
            )

    def _blob(self, x: float, y: float) -> None:
        half, facing = _CANVAS * self.rng.uniform(0.06, 0.075), self.rng.choice([-1, 1])
        body, cabin = (self._colour(colour, at_least=0.8) for colour in _BLOB)
        self.draw.rounded_rectangle((x - half * 0.5, y - half * 0.95, x + half * 0.35, y), 4, fill=cabin)
        self.draw.polygon(
            (
                (x - facing * half, y - half * 0.35),
                (x + facing * half * 1.1, y - half * 0.35),
                (x + facing * half * 0.75, y + half * 0.4),
                (x - facing * half * 0.85, y + half * 0.4),
            ),
            fill=body,
        )

    # Strokes

    def _gradient(self, top: float, bottom: float, first: np.ndarray, last: np.ndarray) -> None:
        top, bottom = math.floor(top), math.ceil(bottom)
        mix = np.linspace(0, 1, max(bottom - top, 1))[:, None]
        rows = np.clip(first * (1 - mix) + last * mix, 0, 255).astype(np.uint8)
        band = np.repeat(rows[:, None, :], _CANVAS, axis=1)
        self.image.paste(Image.fromarray(band), (0, top))

    def _circle(self, x: float, y: float, radius: float, colour: tuple) -> None:
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(colour))

    def _colour(self, colour, at_least: float = 0.0, shaded: bool = True) -> tuple[int, int, int]:
        light = max(self.shade, at_least) if shaded else 1.0
        return tuple(int(value) for value in np.clip(np.asarray(colour) * light, 0, 255))

    def _jitter(self, fraction: float) -> float:
        return _CANVAS * self.rng.uniform(-fraction, fraction)
