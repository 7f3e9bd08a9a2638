"""Lines out of chunks.

A watch is one JSON document a line, and a line may be megabytes long. The splitter has no limit, touches each byte a bounded number of
times, and gives a line only when its end was seen: what a broken connection leaves behind is no line.
"""


class LineSplitter:
    """Feed it chunks; it gives the lines that are complete, without their ends. Empty lines are left out."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, in order."""
        first, *others = chunk.split(b"\n")
        self._begun.append(first)
        if not others:
            return []
        lines = [b"".join(self._begun), *others[:-1]]
        self._begun = [others[-1]]
        return [line for line in lines if line]
