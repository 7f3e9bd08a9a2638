"""Talking to the Kubernetes API server.

Objects are plain data, as the server sends them: what of them matters to Seaway is `common.contracts.objects`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

Raw: TypeAlias = Mapping[str, Any]
