"""Where events come from that no telemetry brought: the resource and the scope `clew.repository`.

Ids are made as those of received ones: a hash of whether there is a message, the length of the schema URL (none here),
and the message. `OTLP` messages are spelled out as bytes, since storage knows no wire format.
"""

from hashlib import blake2b
from typing import Any

NAME = "clew.repository"

# Resource(attributes=[KeyValue("service.name", AnyValue(string_value=NAME))]), InstrumentationScope(name=NAME)
_RESOURCE_OTLP = b"\n\x21\n\x0cservice.name\x12\x11\n\x0f" + NAME.encode()
_SCOPE_OTLP = b"\n\x0f" + NAME.encode()


def _id(otlp: bytes) -> int:
    return int.from_bytes(blake2b(b"1 0 " + otlp, digest_size=8).digest(), "big", signed=True)


def _origin(otlp: bytes, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"id": _id(otlp), "dropped_attributes_count": 0, "attributes": attributes, "otlp": otlp}


RESOURCE = _origin(_RESOURCE_OTLP, {"service.name": NAME}) | {"service_name": NAME}
SCOPE = _origin(_SCOPE_OTLP, {}) | {"name": NAME}
