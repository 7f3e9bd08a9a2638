"""The demo: a Seaway on this machine serves a sample application, and shows what happens when things change.

python -m seaway.demo           stays up at the end and says what to try next
python -m seaway.demo --once    ends by itself; exit code 1 if any step was not seen to work
"""

import asyncio
import sys
from collections.abc import Sequence

from common.runtime.logging import quiet
from seaway.demo.stage import show


def run(arguments: Sequence[str]) -> int:
    """The program."""
    if set(arguments) - {"--once"}:
        print(__doc__, file=sys.stderr)
        return 2
    quiet()
    return asyncio.run(show(once="--once" in arguments))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
