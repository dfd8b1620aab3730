"""Spans arriving: knows OTLP, knows no SQL.

A request is decoded alone, in the thread that received it, so that a bad one harms no neighbour (`otlp`). `intake` holds
the queue and the one thread that takes everything that waits, makes one batch of it (`projection`, `attributes`,
`classification` by the table of `conventions`), stores it, and only then answers every request in it. The queue is
bounded in bytes; full means "come again later", never a silent drop. `grpc_server` and `http_server` are thin edges.
"""
