"""One X-ray from JPEG to a small grey square; run as a script, the worker process of `mimic_cxr_prepare`.

As a script it imports neither mmvm nor torch, so it starts in a fifth of a second, on Linux and macOS, whatever program
called `prepare`. Paths come over standard input, never in the arguments, which other users of the machine can see.
"""

import errno
import json
import os
import signal
import sys
import warnings
import zlib

import numpy as np
from PIL import Image

DONE, MISSING, UNREADABLE, DISK = 1, 2, 3, 4     # what became of an image; DISK: its pixels could not be written
DRAFT = 2   # JPEGs are decoded at 1/2, 1/4 or 1/8 where that leaves this many times the wanted size


def read_image(path: str | os.PathLike, size: int, equalise: bool = False) -> np.ndarray:
    """An image as (size, size) uint8: centre square, optionally equalised, resized with Pillow's antialiased bilinear
    filter.

    A JPEG much larger than `size` is decoded at a fraction of its resolution (libjpeg's scaled transform): 24
    instead of 39 ms for 2544 x 3056 pixels to 224, 0.2 grey levels of mean difference. `equalise` makes the histogram
    of the square flat before it is resized. Raises whatever Pillow raises, the file's name included: for code that
    lets no message out.
    """
    if not os.path.isfile(path):    # a pipe would be waited for, a device read for ever
        raise FileNotFoundError(errno.ENOENT, "no file", os.fspath(path))
    with Image.open(path) as image:
        image.draft("L", (DRAFT * size, DRAFT * size))
        if image.mode.startswith(("I", "F")):       # more than 8 bits: Pillow would cut values, not scale them
            values = np.asarray(image, np.float32)
            low, high = float(values.min()), float(values.max())
            image = Image.fromarray(((values - low) * (255 / max(high - low, 1e-6))).astype(np.uint8))
        image = image.convert("L")
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        image = image.crop((left, top, left + edge, top + edge))
        if equalise:
            image = equalised(image)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def equalised(image: Image.Image) -> Image.Image:
    """A flat histogram: level v becomes 255 (F(v) - F(v0)) / (1 - F(v0)), F(v) being the share of pixels up to v and v0
    the darkest level there is (as in OpenCV)."""
    counts = np.bincount(np.asarray(image).ravel(), minlength=256)
    below = np.cumsum(counts) - counts[np.flatnonzero(counts)[0]]
    return image.point(np.round(255 * np.maximum(below, 0) / max(below[-1], 1)).astype(int).tolist())


def main(folder: str, size: int, equalise: bool, offset: int) -> None:
    """Lines [view, row, path] in; the view's array file is written at `row`; "ready" and
    lines [status, crc32 of the pixels] out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the parent; its end of the pipe then closes
    warnings.simplefilter("ignore")
    print("ready", flush=True)
    files = {}
    for line in sys.stdin:
        view, row, path = json.loads(line)
        status, check = DONE, 0
        try:
            pixels = read_image(path, size, equalise).tobytes()
            check = zlib.crc32(pixels)
        except FileNotFoundError:
            status = MISSING
        except OSError as error:
            status = MISSING if error.errno in (errno.ENOTDIR, errno.EACCES) else UNREADABLE
        except Exception:   # whatever a damaged file makes of Pillow: nothing of it may be printed, it names the path
            status = UNREADABLE
        if status == DONE:
            try:
                if view not in files:
                    files[view] = os.open(os.path.join(folder, f"{view}.npy"), os.O_WRONLY)
                if os.pwrite(files[view], pixels, offset + row * len(pixels)) < len(pixels):
                    status = DISK
            except OSError:
                status = DISK
        print(json.dumps([status, check]), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1", int(sys.argv[4]))
    except (BrokenPipeError, KeyboardInterrupt):    # the parent was killed: nobody is left to tell
        os._exit(1)
