"""What says that a data set is the one that came: 256 bits of BLAKE3, made as its fragments come.

    BLAKE3: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, https://github.com/BLAKE3-team/BLAKE3-specs

Both Routers make one of every object. SHA-256 takes four times as long where the processor has
instructions for it, and fifteen times where it has not, as most servers made before 2021: two
milliseconds for a megabyte, a third of all that a Router may take for it.
"""

from blake3 import blake3

# One that is being made: `update` with each fragment, then `digest`.
Digest = blake3
