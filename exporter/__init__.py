"""Spans leaving: knows how to send OTLP to others.

`demo` records a run of several agents through the OpenTelemetry SDK, as an application would, into any OTLP endpoint.
Nothing here reads the store: what leaves is what an application sends.
"""
