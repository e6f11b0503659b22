"""Damage to the files of a folder: one seeded change, described in words. The same seed gives the same damage."""

import gzip
import io
import os
import pickle
import random
import re
import shutil
import zipfile
from functools import cache
from pathlib import Path

import numpy as np

MOST = 64 * 2**20  # bytes that a bomb unpacks to, times eight for gzip: far above what a target may need
PICKLE = pickle.dumps(os.getpid, protocol=2)  # unpickled it names a function of this process, and does nothing
NUMBERS = (b"-1", b"0", b"1e999", b"nan", b"", b"0x10", b"99999999999999999999", b"4294967295", "\u0664".encode(),
           b"1e-3", b"true", b"9" * 10_000)
NAMES = ("../outside", "umlaut \u00e4", "CON", "a" * 200, "-rf", "; rm", ".hidden", "x\ny")


class Escape:
    """A pickle that would leave a file where it is read: the harness looks for it."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@cache
def bomb(suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(bytes(2**20), mtime=0) * (8 * MOST // 2**20)  # members one after the other
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.npy", bytes(MOST))
    return content.getvalue()


def archive(draw: random.Random) -> bytes:
    """A zip file with entries that want out, and one twice."""
    content, array = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3))
    with zipfile.ZipFile(content, "w") as file:
        for name in ("../../escaped.npy", "/tmp/escaped.npy", "x.npy"):
            file.writestr(name, array.getvalue())
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16  # a symbolic link
        file.writestr(entry, "/etc/hostname")
    return content.getvalue()


def cut(x: bytes, draw):
    return x[:draw.randrange(len(x) + 1)]


def flip(x: bytes, draw):
    x = bytearray(x)
    for _ in range(draw.choice((1, 1, 1, 2, 8, 64)) if x else 0):
        x[draw.randrange(len(x))] ^= 1 << draw.randrange(8)
    return bytes(x)


def overwrite(x: bytes, draw):
    at, n = draw.randrange(len(x) + 1), draw.choice((1, 4, 8, 512))
    return x[:at] + draw.choice((bytes(n), b"\xff" * n, draw.randbytes(n))) + x[at + n:]


def header(x: bytes, draw):
    """Huge values where a header has its sizes."""
    at, n = draw.randrange(min(len(x), 32) + 1), draw.choice((4, 8))
    huge = draw.choice((b"\xff" * n, b"\x7f" + b"\xff" * (n - 1), (2**40).to_bytes(8, "little")[:n]))
    return x[:at] + huge + x[at + n:]


def insert(x: bytes, draw):
    at = draw.randrange(len(x) + 1)
    new = draw.choice((draw.randbytes(draw.choice((1, 9, 100))), b"\n", b"\0", b"\xef\xbb\xbf", b'"'))
    return x[:at] + new + x[at:]


def repeat(x: bytes, draw):
    a, b = sorted(draw.randrange(len(x) + 1) for _ in range(2))
    return x[:b] + x[a:b] + x[b:]


def swap(x: bytes, draw):
    a, b, c = sorted(draw.randrange(len(x) + 1) for _ in range(3))
    return x[:a] + x[b:c] + x[a:b] + x[c:]


def number(x: bytes, draw):
    """One number in a text, or in the text of a header, becomes another, or none."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", x[:100_000]))
    if not found:
        return insert(x, draw)
    one = draw.choice(found)
    return x[:one.start()] + draw.choice(NUMBERS) + x[one.end():]


def line_twice(x: bytes, draw):
    """A line, and with it what it names, comes twice, or is left out, or changes places."""
    lines = x.splitlines(keepends=True)
    if not lines:
        return b"\n"
    i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.randrange(3):
        case 0:
            lines.insert(j, lines[i])
        case 1:
            del lines[i]
        case _:
            lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def key_twice(x: bytes, draw):
    """A name and its value come twice in a mapping, the second time with another value."""
    found = list(re.finditer(rb"([\"']?\w+[\"']?): ?([^,{}\[\]\n]+)", x[:100_000]))
    if not found:
        return line_twice(x, draw)
    one = draw.choice(found)
    apart = b"\n" if x[one.start() - 1:one.start()] in (b"\n", b"") else b", "
    return x[:one.start()] + one[0] + apart + one[1] + b": " + draw.choice((one[2], b"1", b"null")) + x[one.end():]


def kind(x: bytes, draw):
    """Something else under this name."""
    return draw.choice((
        lambda: b"", lambda: b"\n", lambda: b"{}", lambda: b"null\n", lambda: b"[" * 100_000, lambda: b"- " * 5_000,
        lambda: b'{"a":' * 50_000, lambda: PICKLE, lambda: archive(draw), lambda: bomb(".gz"), lambda: bomb(".zip"),
        lambda: gzip.compress(x), lambda: draw.randbytes(1_000), lambda: "text \u00e4\n".encode("utf-16"),
        lambda: b"\x89PNG\r\n\x1a\n" + draw.randbytes(50), lambda: b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n".encode() for i in range(9)),
        lambda: _array(draw), lambda: b"x" * 10_000, lambda: x + x))()


def _array(draw) -> bytes:
    """A numpy file of another type or shape, some with objects, which are pickles."""
    content = io.BytesIO()
    np.save(content, draw.choice((
        np.zeros((2, 3, 4), complex), np.array([{}, None], object), np.zeros(0), np.array(7), np.array(["a", "b"]),
        np.full((4, 4), np.nan), np.zeros((10, 4), "M8[s]"), np.zeros((3, 3, 3), bool),
        np.zeros(3, [("a", int), ("b", float)]), np.full((10, 4), 2**60), np.asfortranarray(np.ones((3, 5, 7))))))
    return content.getvalue()


CONTENTS = (cut, cut, flip, flip, flip, overwrite, header, insert, repeat, swap, number, number, line_twice, key_twice,
            kind, kind)


def _gone(path: Path, draw, files):
    path.unlink()


def _renamed(path: Path, draw, files):
    name = draw.choice(NAMES)
    path.rename(path.with_name(name if "/" not in name else path.name.swapcase()))


def _folder(path: Path, draw, files):
    path.unlink()
    path.mkdir()


def _exchanged(path: Path, draw, files):
    other = draw.choice(files)
    a, b = path.read_bytes(), other.read_bytes()
    path.write_bytes(b), other.write_bytes(a)


def _copied(path: Path, draw, files):
    shutil.copy(path, path.with_name(draw.choice((f"{path.name}.gz", f"._{path.name}", f"copy of {path.name}",
                                                  path.name.upper(), f"{path.stem}.1{path.suffix}"))))


def _link(path: Path, draw, files):
    path.unlink()
    path.symlink_to(draw.choice((path, Path("nowhere"), Path("/dev/zero"), Path("/dev/null"), Path("/"),
                                 draw.choice(files), Path("../" * 40 + "etc/hostname"))))


def _pipe(path: Path, draw, files):
    """A named pipe that nobody writes to: who opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def _locked(path: Path, draw, files):
    path.chmod(0)  # of a user who is not root; root reads it


PLACES = (_gone, _renamed, _folder, _exchanged, _copied, _link, _link, _pipe, _locked)


def damage(folder: Path, seed: int) -> str:
    """Changes one file of `folder`; three times in four its content, else what lies there. In words: what was done."""
    draw = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (".gitignore", "lock")
                   and path.suffix != ".lock")
    # a folder of many pictures has few lists, and these decide more
    def group(path: Path) -> str:
        inside = path.relative_to(folder).parts
        return f"{inside[0] if len(inside) > 1 else ''} {path.suffix}" + (path.name if path.suffix == ".gz" else "")

    chosen = draw.choice(sorted(set(map(group, files))))
    path = draw.choice([path for path in files if group(path) == chosen])
    if draw.random() < 0.25:
        change = draw.choice(PLACES)
        change(path, draw, files)
    else:
        change, content = draw.choice(CONTENTS), path.read_bytes()
        if path.suffix == ".gz" and draw.random() < 0.5:  # what is packed, and not the packing alone
            path.write_bytes(gzip.compress(change(gzip.decompress(content), draw), 1))
        elif draw.random() < 0.03:
            path.write_bytes(pickle.dumps(Escape(str(folder / "escaped"))))
            return f"{path.relative_to(folder)}: pickle"
        else:
            path.write_bytes(change(content, draw))
    return f"{path.relative_to(folder)}: {change.__name__.strip('_')}"
