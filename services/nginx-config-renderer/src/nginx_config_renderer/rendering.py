"""A program: renders a template of the operator in a process of its own, where it may fail or not come to an end.

    python -m nginx_config_renderer.rendering DIRECTORY

It reads what to render from the directory and writes nginx.conf there. Its last line says what is wrong with the template.
"""

import pickle
import sys
from pathlib import Path
from typing import Final

from jinja2 import TemplateError, TemplateSyntaxError

from nginx_config_renderer.configuration import configuration, fingerprint_of
from nginx_config_renderer.trial import SOURCE, TEXT

_LARGEST: Final = 4 * 1024 * 1024


def main() -> int:
    """0 if nginx.conf was written."""
    directory = Path(sys.argv[1])
    edge, options, digest = pickle.loads((directory / SOURCE).read_bytes())  # noqa: S301 our own process wrote it
    try:
        text = configuration(edge, options, digest)
    except TemplateSyntaxError as error:
        return _refuse(f"line {error.lineno}: {error.message}")
    except TemplateError as error:
        return _refuse(f"line {_line(error)}: {error.message}")
    except Exception as error:  # noqa: BLE001 whatever a template does
        return _refuse(f"line {_line(error)}: {error}")
    if not fingerprint_of(text) or edge.admin_socket not in text:
        return _refuse(
            "it must hold the block init_by_lua_block and the server of {{ edge.admin_socket }} as the built-in template has them"
        )
    if len(text) > _LARGEST:
        return _refuse(f"it makes more than {_LARGEST} characters")
    (directory / TEXT).write_text(text)
    return 0


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
