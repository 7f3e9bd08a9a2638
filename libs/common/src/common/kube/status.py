"""Writing to objects that others write to as well.

Each service writes under a field manager of its own, `seaway-<service>`, so that the server knows which field is whose: a field that we no
longer apply goes away by itself, and one that belongs to somebody else is refused with Owned, which names the field and its owner.
(Kubernetes documentation, "Server-Side Apply".)
"""

from common.contracts.refs import ObjectRef
from common.kube import Raw
from common.kube.session import KubeSession


class Writer:
    """Writes fields as one service. `uid` names the one object that is meant: not another of its name, nor one that would be new."""

    def __init__(self, session: KubeSession, service: str) -> None:
        self._session = session
        self.manager = f"seaway-{service}"

    async def apply(self, ref: ObjectRef, fields: Raw, *, uid: str | None = None, force: bool = False) -> Raw:
        """Makes `fields` true; makes the object if there is none and no `uid` is given. By `force` also what others own."""
        return await self._session.apply(ref, _meant(fields, uid), manager=self.manager, force=force)

    async def apply_status(self, ref: ObjectRef, status: Raw, *, uid: str | None = None, force: bool = False) -> Raw:
        """Makes the fields of `status` true. Raises NotFound if there is no such object."""
        fields = _meant({"status": status}, uid)
        return await self._session.apply(ref, fields, manager=self.manager, force=force, subresource="status")

    async def patch_status(self, ref: ObjectRef, status: Raw, *, version: str | None = None, uid: str | None = None) -> Raw:
        """Merges `status` into the status, whoever wrote it. With `version`, raises Conflict if the object has changed since; with `uid`,
        if another one has its name now.
        """
        meant = {"resourceVersion": version, "uid": uid}
        guard = {"metadata": {name: value for name, value in meant.items() if value is not None}}
        return await self._session.patch(ref, {**guard, "status": status}, manager=self.manager, subresource="status")


def _meant(fields: Raw, uid: str | None) -> Raw:
    return fields if uid is None else {**fields, "metadata": {**fields.get("metadata", {}), "uid": uid}}
