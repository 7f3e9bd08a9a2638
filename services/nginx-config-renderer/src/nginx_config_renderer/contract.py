"""The contract between nginx.conf and the program that nginx runs: what a template of one's own must keep.

It is read off the built-in configuration, so it is no second list of it: the tables in shared memory, the hooks, the variables and
locations that the program uses, and its door. Everything else an operator may write as he likes.
"""

import hashlib
import re
from typing import Final

_COMMENT: Final = re.compile(r"(?:^|(?<=[\s;{}]))#.*", re.MULTILINE)
_CLAUSE: Final = re.compile(
    r"""lua_shared_dict\ \w+
      | \w+_by_lua_block\ (?:\$\w+\ )?\{[^{}]*\}
      | require\("seaway\.\w+"\)
      | router\.\w+\ =
      | journals\ =
      | set\ \$seaway_\w+
      | (?:geo|map)\ [^{}]*?(?=\ \{)
      | if\ \(\$\w+[^)]*\)\ \{[^}]*\}
      | error_page\ 418[^;]*
      | upstream\ seaway_\w+
      | location\ (?:=\ )?[@/][\w/-]*
      | listen\ unix:[^;]+""",
    re.VERBOSE,
)


def fingerprint_of(text: str) -> str:
    """The fingerprint that a configuration carries; empty if it carries none."""
    return text.partition('fingerprint = "')[2].partition('"')[0]


def fingerprint(text: str) -> str:
    """What a configuration carries in the place of `text`'s own mark, so that it changes with every byte of it."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_marked(text: str, mark: str) -> bool:
    """Whether `text` carries its own fingerprint, which it got where it had `mark` before."""
    carried = fingerprint_of(text)
    return bool(carried) and fingerprint(text.replace(carried, mark)) == carried


def clauses(text: str) -> frozenset[str]:
    """What of a configuration the program needs."""
    return frozenset(" ".join(clause.split()) for clause in _CLAUSE.findall(_plain(text)))


def missing(text: str, needed: frozenset[str]) -> tuple[str, ...]:
    """Which of these `text` lacks."""
    return tuple(sorted(needed - clauses(text)))


def _plain(text: str) -> str:
    """Without comments, and with one space between words and none before a semicolon."""
    return " ".join(_COMMENT.sub("", text).replace("{", " { ").replace("}", " } ").split()).replace(" ;", ";")
