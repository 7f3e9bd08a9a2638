"""The operator's ConfigMap: what is read of it, and that none of its text gets into nginx.conf as it is."""

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from tests.unit.test_edge_wanted import EDGE

from common.contracts.objects import ConfigMap
from common.knobs import Knob
from common.testing.objects import config_map
from nginx_config_renderer.configuration import configuration
from nginx_config_renderer.option_keys import TABLE, defaults, halves, read
from nginx_config_renderer.options import Options

HOSTILE = st.text(string.ascii_lowercase + string.digits + " ;{}\"'$\\\n#:/.-_", max_size=40)


def of(data: dict[str, str]) -> tuple[Options, list[str]]:
    options, problems = read(ConfigMap.project(config_map("nginx-config", data)), Options())
    return options, [problem.message for problem in problems]


@pytest.mark.parametrize("option", TABLE, ids=lambda option: option.name)
def test_what_is_said_to_hold_unless_given_does(option: Knob) -> None:
    if option.default:
        assert of({option.name: option.default}) == (Options(), [])


def test_all_faults_are_told_and_one_is_enough_to_refuse_the_whole() -> None:
    options, problems = of({"proxy-body-size": "9m", "keep-alive": "x", "no-such-key": "1"})
    assert options == Options()
    assert [problem.split(":")[0] for problem in problems] == ["key keep-alive is 'x'", "key no-such-key is '1'"]


def test_what_was_good_before_is_read_again_and_what_is_good_no_more_is_left() -> None:
    assert defaults({"proxy-body-size": "9m"}, Options()).usual.body_size == 9 * 1024**2
    assert defaults({"no-such-key": "9m"}, Options()) == Options()


@pytest.mark.parametrize(
    ("passes", "data", "told"),
    [
        (True, {"use-forwarded-headers": "true", "forwarded-for-header": "X-Client"}, True),
        (False, {"use-forwarded-headers": "true"}, False),
        (True, {}, False),
        (True, {"use-forwarded-headers": "true", "use-proxy-protocol": "true"}, False),
    ],
)
def test_an_edge_that_passes_connections_on_says_where_a_header_does_not_name_the_client(
    passes: bool, data: dict[str, str], told: bool
) -> None:
    found = halves(ConfigMap.project(config_map("nginx-config", data)), of(data)[0], passes=passes)
    assert ["X-Client names the client over HTTP alone" in problem.message for problem in found] == [True] * told


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([option.name for option in TABLE]), HOSTILE, max_size=4))
def test_no_text_of_a_configmap_adds_a_directive(data: dict[str, str]) -> None:
    options, _ = of(data)
    assert shape(configuration(EDGE, options, "p")) <= EVERY_SHAPE


def shape(text: str) -> set[str]:
    """The names of all directives and blocks."""
    without = re.sub(r"#.*", "", re.sub(r'"(?:\\.|[^"\\])*"', '""', text, flags=re.DOTALL))  # a string may go over several lines
    return set(re.findall(r"^\s*([a-z_]+|\})", without, re.MULTILINE))


def everything() -> Options:
    """Options that make use of every part of the template."""
    chosen = {option.name: "true" for option in TABLE if option.default == "false"}
    return of(chosen | {"ssl-ciphers": "HIGH", "hide-headers": "X-A"})[0]


EVERY_SHAPE = shape(configuration(EDGE, everything(), "p")) | shape(configuration(EDGE, Options(), "p"))


@pytest.mark.parametrize("template", ["{{ edge.nothing }}", "{% for %}", "{{ edge.__class__.__mro__ }}", "{{ ''.__class__ }}"])
def test_a_template_gets_no_further_than_what_it_is_given(template: str) -> None:
    with pytest.raises(TemplateError):
        configuration(EDGE, Options(template=template), "p")
