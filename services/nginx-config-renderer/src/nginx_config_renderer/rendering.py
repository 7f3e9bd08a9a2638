"""A program: renders a template of the operator in a process of its own, where it may fail, or not come to an end, and gets at nothing.

    python -m nginx_config_renderer.rendering DIRECTORY BOUNDS

It reads what to render from the directory and writes nginx.conf there. Its last line says what is wrong with the template.
"""

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import jinja2.debug  # noqa: F401 Jinja wants it when a template fails, which is too late to read it
from jinja2 import TemplateError, TemplateSyntaxError

from nginx_config_renderer.configuration import Edge, configuration
from nginx_config_renderer.confine import CANNOT, Bounds, enter
from nginx_config_renderer.contract import clauses, is_marked, missing
from nginx_config_renderer.options import Options
from nginx_config_renderer.trial import SOURCE, TEXT

_LARGEST: Final = 4 * 1024 * 1024
_SHOWN: Final = 3


def main() -> int:
    """0 if nginx.conf was written."""
    directory = Path(sys.argv[1])
    edge, options, digest = pickle.loads((directory / SOURCE).read_bytes())  # noqa: S301 our own process wrote it
    needed = clauses(configuration(edge, replace(options, template=""), digest))
    with (directory / TEXT).open("w") as target:
        try:
            enter(Bounds.parse(sys.argv[2]))
        except OSError as error:
            _refuse(f"it cannot be rendered in isolation: {error}")
            return CANNOT
        text, fault = _render(edge, options, digest)
        if not fault:
            fault = _fault(text, digest, needed)
        if fault:
            return _refuse(fault)
        target.write(text)
    return 0


def _render(edge: Edge, options: Options, digest: str) -> tuple[str, str]:
    """nginx.conf, or what is wrong."""
    try:
        return configuration(edge, options, digest), ""
    except TemplateSyntaxError as error:
        return "", f"line {error.lineno}: {error.message}"
    except TemplateError as error:
        return "", f"line {_line(error)}: {error.message}"
    except MemoryError:
        return "", "it takes too much memory"
    except Exception as error:  # noqa: BLE001 whatever a template does
        return "", f"line {_line(error)}: {str(error) or type(error).__name__}"


def _fault(text: str, digest: str, needed: frozenset[str]) -> str:
    """What is wrong with what a template made."""
    if len(text) > _LARGEST:
        return f"it makes more than {_LARGEST} characters"
    lost = missing(text, needed)
    if lost:
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        shown = ", ".join(f"`{one}`" for one in lost[:_SHOWN])
        return f"the program needs {shown}{more}, as the built-in template has it"
    if not is_marked(text, digest):
        return 'it must hold fingerprint = "{{ fingerprint }}" in its init_by_lua_block'
    return ""


def _line(error: BaseException) -> int:
    """The line of the template in which an error arose."""
    found, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def _refuse(reason: str) -> int:
    print(reason.replace("\n", " "))
    return 1


if __name__ == "__main__":
    sys.exit(main())
