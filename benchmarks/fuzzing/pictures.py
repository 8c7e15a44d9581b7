"""Files of data sets: IDX, and images."""

import io
import struct
from random import Random

from PIL import Image

from fuzzing import odd, raw

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "ICO", "PPM", "TGA", "PCX", "EPS", "PDF")
_MODES = ("L", "RGB", "RGBA", "P", "1", "CMYK", "I;16", "F", "LA")


def idx(content: bytes, random: Random) -> bytes:
    """Change type, dimensions, sizes or bytes of an IDX file."""
    if not random.randrange(3):
        return raw.changed(content, random)
    dimensions = content[3]
    sizes = list(struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions]))
    data = content[4 + 4 * dimensions :]
    what = random.randrange(4)
    if what == 0:
        at = random.randrange(dimensions)
        sizes[at] = random.choice((odd.near(sizes[at], random), *odd.INTEGERS)) % 2**32
    elif what == 1:
        data = random.choice((data[:-1], data + b"\0", b"", bytes([255]) * len(data)))
    elif what == 2:
        sizes = random.choice((sizes[::-1], sizes[:-1], [*sizes, 1], [0] * dimensions, [1, *sizes[1:]]))
    kind = random.choice((8, 8, 8, 9, 13, 14, 0))
    return bytes((0, 0, kind, len(sizes))) + struct.pack(f">{len(sizes)}I", *sizes) + data


def image(content: bytes, random: Random) -> bytes:
    """Change an image: its bytes, or size, mode and format."""
    if random.randrange(2):
        return raw.changed(content, random)
    size = random.choice(((8, 8), (8, 8), (1, 1), (9, 8), (300, 1), (1, 3000)))
    for _ in range(4):  # not every format has every mode
        stream = io.BytesIO()
        try:
            Image.new(random.choice(_MODES), size).save(stream, random.choice(_FORMATS))
        except (OSError, KeyError, ValueError):
            continue
        found = stream.getvalue()
        return raw.changed(found, random) if not random.randrange(3) else found
    return b""
