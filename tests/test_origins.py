"""Resources and scopes are read once while they are small; what is large is not kept."""

from __future__ import annotations

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from clew.collector.origins import KEPT_BYTES_MAX, DistinctOrigins, read_resource
from clew.storage.preparing import ORIGINS_KEPT_BYTES_MAX, prepare_origins


@pytest.mark.parametrize(("size", "is_kept"), [(10, True), (KEPT_BYTES_MAX, False), (ORIGINS_KEPT_BYTES_MAX, False)])
def test_only_small_origins_are_kept(size: int, is_kept: bool) -> None:
    """Telemetry comes from the same few for hours; hundreds of large ones would take the memory."""
    resource = Resource()
    resource.attributes.add(key="text").value.string_value = "x" * size
    once, again = (read_resource(resource.SerializeToString(), "") for _ in range(2))
    assert once == again
    assert (once is again) == is_kept
    stored, stored_again = (DistinctOrigins([once], ["service_name"]).stored() for _ in range(2))
    assert (stored is stored_again) == is_kept
    assert (prepare_origins(stored) is prepare_origins(stored)) == (size < ORIGINS_KEPT_BYTES_MAX)
