"""Spans leaving: knows how to say in OTLP what is stored, and how to send OTLP to others.

`otlp` makes stored events OTLP again, equal to what came in. `pages` gives them in bulk, run after run; `outgoing` is
the feed of what goes on to other backends, in the order of commits. Both read `portions`, in an order and from a place
on. Everything is said by columns, `span_columns`, `log_columns` and `variant_attributes`, in the format of `wire`;
`rows` says one by one what columns cannot. `blocks` makes requests of it.

`forwarding` sends what is outgoing: to each of the `targets` that are configured on a thread of its own, by `senders`,
a `batch` at a time, until each record is taken or refused; `target_answers` says what an answer means and what is to be
done about it.

`recorder` is what an application records its runs with (`clew.run`, `clew.record`): `scopes` are a run's spans and what
can be said in them, `delivery` gets them out without harm to the application. `demo` records a run of several agents
through the OpenTelemetry SDK alone, into any OTLP endpoint.
"""
