"""
Fuzz the targets with random mutations of the seeds, where Atheris cannot be installed.

`python -m tests.fuzz.mutate SECONDS [NAME ...]` tries the targets whose function is named
`NAME...`, by default all. Inputs that fail are written to the working directory.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.target import SEEDS, TARGETS

_PARTS = (b"\r\n", b": ", b"\x01", b"\x02", b":", b" ", b"\0", b"\x82\x87\x84", b"0\r\n\r\n")


def mutate(random_source: random.Random, data: bytes, seeds: list[bytes]) -> bytes:
    """Return `data` with some random changes."""
    for _ in range(random_source.randint(1, 6)):
        start = random_source.randint(0, len(data))
        end = min(len(data), start + random_source.randint(0, 8))
        choice = random_source.randrange(6)
        if choice == 0:
            data = data[:start] + bytes((random_source.randrange(256),)) + data[start + 1 :]
        elif choice == 1:
            data = data[:start] + data[end:]
        elif choice == 2:
            data = data[:end] + data[start:end] * random_source.randint(1, 4) + data[end:]
        elif choice == 3:
            data = data[:start] + random_source.choice(_PARTS) + data[start:]
        elif choice == 4:
            other = random_source.choice(seeds)
            data = data[:start] + other[random_source.randint(0, len(other)) :]
        else:
            data = data[:start] + random_source.randbytes(4) + data[start:]
    return data[:4096]


def main() -> None:
    """Try mutations for the seconds given on the command line."""
    seconds, names = float(sys.argv[1]), sys.argv[2:]
    seed = time.time_ns()
    source = random.Random(seed)
    selected = [
        number
        for number, target in enumerate(TARGETS)
        if not names or any(target.__name__.startswith(name) for name in names)
    ]
    pools = {
        number: [seed[1:] for seed in SEEDS if seed[0] == number] or [b""] for number in selected
    }
    end = time.monotonic() + seconds
    count = failures = 0
    while time.monotonic() < end and failures < 10:
        number = source.choice(selected)
        pool = pools[number]
        data = mutate(source, source.choice(pool), pool)
        count += 1
        try:
            TARGETS[number](data)
        except Exception:
            failures += 1
            traceback.print_exc()
            Path(f"crash-{seed}-{count}.bin").write_bytes(bytes((number,)) + data)
        if source.random() < 0.02 and len(pool) < 2000:
            pool.append(data)
    print(f"{count} inputs, {failures} failures, seed {seed}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
