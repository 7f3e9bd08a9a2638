"""A service at its cluster: the API server that it was told of, its voice for Events, and the office that one of its replicas holds.

session = await session_of(app, settings.kubeconfig)
recorder = recorder_of(app, session)
app.spawn("office", hold(session, settings.lease, settings.lease_terms, office.run))
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from common.contracts.refs import ObjectRef
from common.kube.election import Terms
from common.kube.errors import Misconfigured
from common.kube.events import Recorder
from common.kube.lease import Candidate, LeaseLost, unique_identity
from common.kube.session import KubeSession
from common.runtime.app import App, Fatal, Stage

_LAST_EVENTS: Final = 1.0  # seconds for what is still to be told at the end


async def session_of(app: App[Any], kubeconfig: Path | None) -> KubeSession:
    """The API server of `kubeconfig`, else of KUBECONFIG, the pod, `~/.kube/config`. Raises Fatal if none of them names one."""
    try:
        return await app.enter(KubeSession.auto(str(kubeconfig) if kubeconfig else None, agent=f"seaway-{app.service}"))
    except Misconfigured as error:
        raise Fatal(str(error)) from error


def recorder_of(app: App[Any], session: KubeSession) -> Recorder:
    """What writes Events in the name of the service. What is still to be written when it ends gets a last moment."""
    recorder = Recorder(session, app.service, app.settings.instance)
    app.spawn("events", recorder.run())
    app.at_stop(Stage.FLUSH, "events", lambda: recorder.drain(within=_LAST_EVENTS))
    return recorder


async def hold(session: KubeSession, lease: ObjectRef | None, terms: Terms, office: Callable[[], Awaitable[None]]) -> None:
    """Runs `office` while we lead; stands by when we do not any more, since serving goes on. Without a lease there is nobody else."""
    while lease is not None:
        try:
            await Candidate(session, lease, unique_identity(), terms).lead(office)
        except LeaseLost:
            continue
    await office()
