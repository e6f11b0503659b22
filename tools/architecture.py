"""Draws the floors of the house from its code: book/figures/architecture.svg, which ARCHITECTURE.md shows.

    python tools/architecture.py            draw
    python tools/architecture.py --check    only say whether the picture has the code's rooms and arrows

Floors are the layers that pyproject.toml makes import-linter hold. A box is a room (a package or a module), the wider
the more lines it has; a line goes down to each room that it imports. The ground, on which all stand, has none.
"""

import re
import sys
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "book" / "figures" / "architecture.svg"
WIDTH, HEIGHT, GAP, LEFT, LEAST = 960, 46, 34, 16, 92
GROUND = ("mmvm.errors", "mmvm.paths", "mmvm.options")
COLOURS = {"studies": "#E3EEF8", "workflow": "#E3EEF8", "mmvm": "#FBE9DD"}


def floors() -> list[list[str]]:
    """From the top, the rooms of every floor as dotted names."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {tuple(contract.get("containers", [""])): contract["layers"] for contract in contracts
              if contract["type"] == "layers"}
    inside = {container: [[f"{container}.{name.strip()}" for name in layer.split("|")]
                          for layer in layers[(container,)]] for container in ("studies", "mmvm")}
    studies, *others = inside["studies"]
    return [studies, [*others[0], "workflow"], *inside["mmvm"]]


def lines(room: str) -> int:
    path = ROOT / room.replace(".", "/")
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    return sum(len(file.read_text().splitlines()) for file in files)


def arrows(rooms: list[str]) -> list[tuple[str, str, int]]:
    """(importer, imported, number of imports) between rooms."""
    graph = grimp.build_graph("mmvm", "studies", "workflow", cache_dir=None)

    def room_of(module: str) -> str | None:
        return next((room for room in rooms if module == room or module.startswith(f"{room}.")), None)
    found: dict[tuple[str, str], int] = {}
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            pair = room_of(module), room_of(other)
            if None not in pair and pair[0] != pair[1]:
                found[pair] = found.get(pair, 0) + 1
    return sorted((*pair, n) for pair, n in found.items())


def draw() -> str:
    levels = floors()
    rooms = [room for level in levels for room in level]
    size = {room: lines(room) for room in rooms}
    place, out = {}, []
    for i, level in enumerate(levels):
        total, gaps = sum(size[room] for room in level), 14 * (len(level) - 1)
        rest = (WIDTH - 2 * LEFT - gaps - LEAST * len(level)) * min(1.0, total / 3000)
        x = (WIDTH - gaps - LEAST * len(level) - rest) / 2
        for room in level:
            width = LEAST + rest * size[room] / total
            place[room] = (x, 16 + i * (HEIGHT + GAP), width)
            x += width + 14
    for importer, imported, n in arrows(rooms):
        (x, y, w), (u, v, z) = place[importer], place[imported]
        if imported not in GROUND:
            start, end = x + w / 2, u + z / 2
            out.append(f'<path d="M{start:.0f} {y + HEIGHT} C{start:.0f} {y + HEIGHT + 22} {end:.0f} {v - 22} '
                       f'{end:.0f} {v}" fill="none" stroke="#8c8c8c" stroke-opacity="0.45" '
                       f'stroke-width="{0.6 + 0.12 * min(n, 12):.1f}"><title>{importer} imports '
                       f'{imported}</title></path>')
    for room in rooms:
        x, y, w = place[room]
        container, _, name = room.partition(".")
        label = f"{container}/{name}" if container != "mmvm" and name else name or container
        out.append(f'<rect x="{x:.0f}" y="{y}" width="{w:.0f}" height="{HEIGHT}" rx="4" fill="{COLOURS[container]}" '
                   'stroke="#333333" stroke-width="0.8"/>')
        out.append(f'<text x="{x + w / 2:.0f}" y="{y + 19}" text-anchor="middle" font-size="12.5">{label}</text>')
        out.append(f'<text x="{x + w / 2:.0f}" y="{y + 36}" text-anchor="middle" font-size="10.5" fill="#666666">'
                   f'{round(size[room], -1):,} lines</text>')
    height = 16 + len(levels) * (HEIGHT + GAP)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>\n'
            + "\n".join(out) + "\n</svg>\n")


def seen(picture: str) -> list[str]:
    """The rooms and arrows of a picture, without sizes."""
    return sorted(re.findall(r"<title>(.*?)</title>|font-size=\"12.5\">(.*?)</text>", picture))


def main() -> int:
    picture = draw()
    if "--check" in sys.argv[1:]:
        same = PICTURE.exists() and seen(PICTURE.read_text()) == seen(picture)
        print(f"{PICTURE.relative_to(ROOT)} is " + ("that of the code" if same else "old: run tools/architecture.py"))
        return 0 if same else 1
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture)
    print(f"{PICTURE.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
