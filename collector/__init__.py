"""Telemetry arriving: knows OTLP, knows no SQL.

`grpc_server` and `http_server` are thin edges: they undo compression and OTLP's JSON and hand bytes to `intake`, which
holds a queue for each of the `signals` and answers a request once it is committed. gRPC, intake and reading are in a
process of their own (`receiving`, owned by `receiver`), which hands the other what is ready to be stored over a `line`.
What waits becomes one batch: `reading` decodes requests (`otlp`) so that one that is broken harms no neighbour,
`projection` makes events of spans, with `attributes` and `classification` by the tables of `storage.conventions`,
`log_records` and `metric_points` make rows of the other signals. A queue is bounded in bytes; full means "come again
later", never a silent drop. `outcomes` says how a request can fare, `answers` is the one map from that to what OTLP
says of it.
"""
