"""Bytes of any kind."""

from random import Random

_PIECES = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"[",
    b"{",
    b'"',
    b"\xef\xbb\xbf",
    b"NaN",
    b"1e999",
    b"\\ud800",
)
_LENGTHS = (0, 1, 2**31, 2**32, 2**63, 2**64 - 1, 10**8)


def changed(content: bytes, random: Random) -> bytes:
    """Flip, cut, put in, repeat or end early, once or a few times; of headers more often."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        if not data:
            return bytes(random.choice(_PIECES))
        reach = random.choice((8, 64, len(data)))
        at = random.randrange(min(reach, len(data)))
        what = random.randrange(7)
        if what < 2:
            data[at] = random.randrange(256)
        elif what == 2:
            del data[at : at + random.choice((1, 2, 20, 200))]
        elif what == 3:
            data[at:at] = random.choice(_PIECES)
        elif what == 4:
            del data[at:]
        elif what == 5:
            data[at : at + 8] = random.choice(_LENGTHS).to_bytes(8, random.choice(("little", "big")))
        else:
            data += data[at : at + 100]
    return bytes(data)
