"""The knobs of keepalived-vip."""

import os
import re
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from common.runtime.settings import ServiceSettings
from keepalived_vip.edges import Patience, parse_edge
from keepalived_vip.known import Scope
from keepalived_vip.nodes import parse_selector
from keepalived_vip.render import INTERFACE, Style

_NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
_PLAIN: Final = re.compile(r"/[A-Za-z0-9_./-]+")


class Settings(ServiceSettings):
    """Which addresses this node may hold, on which interface, and how fast it gives way."""

    node: str = Field(
        default_factory=lambda: os.environ.get("NODE_NAME") or os.uname().nodename,
        description="Name of the Node that this is.",
    )
    interface: str = Field(
        "auto", description="Interface of the addresses and of VRRP; auto is the one with the node's InternalIP."
    )
    node_selector: str = Field("", description="Labels of the nodes that take part, such as `edge=true`; empty is all nodes.")
    vips_configmap: str = Field(
        "seaway-edge/vips", pattern=_NAME, description="Namespace and name of the ConfigMap with the operator's own addresses."
    )
    pools_configmap: str = Field(
        "seaway-edge/lb-pools",
        pattern=_NAME,
        description="Namespace and name of the ConfigMap with the pools, out of which services may want addresses.",
    )
    groups: int = Field(12, ge=1, le=120, description="Groups over which addresses are spread; the same on all nodes.")
    first_vrid: int = Field(
        100, ge=1, le=255, description="VRID of the first group; the same on all nodes, and nobody else's on that network."
    )
    advert_interval: float = Field(
        0.2,
        ge=0.05,
        le=10,
        description="Seconds between two advertisements; the same on all nodes. A crash is noticed after three.",
    )
    preempt_delay: int = Field(
        300, ge=-1, le=1000, description="Seconds after which a better node takes addresses from a worse one; -1 is never."
    )
    reload_pause: float = Field(1.0, ge=0.1, description="Least seconds between two configurations of keepalived.")
    edges: tuple[str, ...] = Field(
        (),
        description="What must be ready here for this node to hold addresses: tcp:HOST:PORT, http://HOST:PORT[/PATH], unix:PATH.",
    )
    edge_interval: float = Field(0.1, ge=0.02, description="Seconds between two questions to an edge.")
    edge_timeout: float = Field(0.2, ge=0.02, description="Seconds that an edge has for its answer.")
    edge_fall: int = Field(
        2, ge=1, description="Bad answers after which an edge is not ready; one that is gone is believed at once."
    )
    edge_rise: int = Field(3, ge=1, description="Good answers after which it is ready again.")
    unready: Literal["release", "lower"] = Field(
        "release", description="What a node does whose edge is not ready: give its addresses up, or lower its priority."
    )
    stale_after: float = Field(
        3.0, ge=0.5, description="Seconds after which an address that should not be here is taken off the interface."
    )
    probe_interval: float = Field(
        10.0, ge=0, description="Seconds after which the link is asked again who else has an address of this node; 0 is never."
    )
    run: Path = Field(Path("/run/seaway/vip"), description="Directory that keepalived and this service share.")
    state: Path = Field(Path("/var/lib/seaway/vip"), description="Directory for what must outlive a restart of the machine.")
    keepalived: str = Field("keepalived", description="The keepalived that tests the configuration, and runs it.")
    run_keepalived: bool = Field(
        default=True, description="Whether keepalived runs as a child of this service; else somebody else runs it on `run`."
    )

    @field_validator("interface")
    @classmethod
    def _a_name(cls, interface: str) -> str:
        if not INTERFACE.fullmatch(interface):
            raise ValueError("this is no name of an interface")
        return interface

    @field_validator("run", "state")
    @classmethod
    def _plain(cls, path: Path) -> Path:
        if not _PLAIN.fullmatch(str(path.absolute())):
            raise ValueError("the path must be of letters, digits, dots, dashes and underscores, since keepalived reads it")
        return path.absolute()

    @field_validator("edges")
    @classmethod
    def _edges(cls, edges: tuple[str, ...]) -> tuple[str, ...]:
        for edge in edges:
            parse_edge(edge)
        return edges

    @field_validator("node_selector")
    @classmethod
    def _labels(cls, selector: str) -> str:
        parse_selector(selector)
        return selector

    @model_validator(mode="after")
    def _vrids(self) -> Self:
        if self.first_vrid + self.groups - 1 > 255:
            raise ValueError(
                f"first_vrid {self.first_vrid} and {self.groups} groups need VRIDs up to {self.first_vrid + self.groups - 1}, "
                "and the last one is 255; lower one of them"
            )
        return self

    @property
    def track_file(self) -> Path:
        """Where keepalived reads whether it may hold addresses."""
        return self.run / "health"

    @property
    def patience(self) -> Patience:
        """How edges are asked."""
        return Patience(self.edge_interval, self.edge_timeout, self.edge_fall, self.edge_rise)

    @property
    def scope(self) -> Scope:
        """Of what this node takes notice."""
        return Scope(
            cluster=self.cluster,
            node=self.node,
            selector=parse_selector(self.node_selector),
            statics=_configmap(self.vips_configmap),
            pools=_configmap(self.pools_configmap),
            groups=self.groups,
        )

    def style(self, interface: str) -> Style:
        """What holds for all instances of this node."""
        return Style(
            interface=interface,
            track_file=str(self.track_file),
            advert_interval=self.advert_interval,
            preempt_delay=None if self.preempt_delay < 0 else self.preempt_delay,
        )


def _configmap(text: str) -> ObjectRef:
    namespace, _, name = text.partition("/")
    return ObjectRef(ConfigMap.resource, namespace, name)
