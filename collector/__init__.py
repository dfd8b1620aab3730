"""Spans arriving: knows OTLP, knows no SQL.

`grpc_server` and `http_server` are thin edges: they undo compression and OTLP's JSON and hand bytes to `intake`, which
holds the queue and answers a request once it is committed. What waits becomes one batch (`projection`, with
`attributes` and `classification` by the tables of `storage.conventions`), read by a process of its own under load (`worker`). A
request that cannot be decoded (`otlp`) harms no neighbour. The queue is bounded in bytes; full means "come again
later", never a silent drop. `answers` is the one map from a refusal to what OTLP says of it.
"""
