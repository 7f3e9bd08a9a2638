"""Problems: what is wrong with an object, as a value.

A derivation returns problems beside its result; it never raises for bad input. One problem speaks of one object, in a sentence that
names the field, the value and the mend, and changes nobody else's result.
"""

from dataclasses import dataclass

from common.contracts.refs import ObjectRef


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Why (a part of) an object is not in force. `reason` is a CamelCase word, as in the Events of Kubernetes."""

    ref: ObjectRef
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.ref}: {self.message}"
