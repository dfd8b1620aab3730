"""Spans leaving: knows how to say in OTLP what is stored, and how to send OTLP to others.

`otlp` makes stored events OTLP again, equal to what came in. `recorder` is what an application records its runs with
(`clew.run`, `clew.record`): `scopes` are a run's spans and what can be said in them, `delivery` gets them out without
harm to the application. `demo` records a run of several agents through the OpenTelemetry SDK alone, into any OTLP
endpoint.
"""
