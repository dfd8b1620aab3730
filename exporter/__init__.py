"""Spans leaving: knows how to say in OTLP what is stored, and how to send OTLP to others.

`otlp` makes stored events OTLP again, equal to what came in. `demo` records a run of several agents through the
OpenTelemetry SDK, as an application would, into any OTLP endpoint.
"""
