"""Threefry-2x32 with 20 rounds in NumPy's uint32, from Salmon et al. 2011, section 3.2, and what is
made of its words. Nothing here comes from the library under test.
"""

import math

import numpy as np

ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24]
VECTORS = [  # key, counter, result: the authors' known answers
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def threefry(key, counter):
    """Two arrays of uint32."""
    words = [np.asarray([x], np.uint32) for x in (*key, key[0] ^ key[1] ^ 0x1BD11BDA)]
    x, y = (np.atleast_1d(np.asarray(c)).astype(np.uint32) for c in counter)
    x, y = x + words[0], y + words[1]
    for n in range(20):
        x = x + y
        left = np.uint32(ROTATIONS[n % 8])
        y = ((y << left) | (y >> (np.uint32(32) - left))) ^ x
        if n % 4 == 3:
            s = n // 4 + 1
            x, y = x + words[s % 3], y + words[(s + 1) % 3] + np.uint32(s)
    return x, y


def bits(seed, stream, step, shape):
    """The two words of each element."""
    found = threefry((seed, stream), (np.arange(math.prod(shape)), step))
    return tuple(x.reshape(shape) for x in found)


def uniform(seed, stream, step, shape):
    """53 bits of float64."""
    a, b = (x.astype(np.float64) for x in bits(seed, stream, step, shape))
    return (a * 2**21 + b // 2**11) / 2**53


def normal(seed, stream, step, shape):
    """Box and Muller's, in float64."""
    a, b = (x.astype(np.float64) for x in bits(seed, stream, step, shape))
    c, d = (x.astype(np.float64) for x in bits(seed, stream, step + 2**31, shape))
    u, v = (a + c // 2**11 / 2**21 + 2.0**-22) / 2**32, (b + d // 2**11 / 2**21) / 2**32
    return np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
