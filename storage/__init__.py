"""Spans at rest: knows SQL, knows no wire format.

`schema` is the one definition of the tables; `migrate` brings a database to it; `engine` opens a database and holds
what differs between engines. Spans come as `batch.SpanBatch`, records and points as `hashed.HashedBatch`; `preparing`
does what needs no database (`runs`, `histories`, and `variant` for attributes), `writing` the rest in one transaction:
parents first, duplicates settled by `identity`. Reads go through `reading`, read-only by the engine and bounded in
time; SQL from outside through `selecting`, judged by `sandbox` before and bounded in memory too.

Applications that open the file themselves use `database` (sessions that check `references`, follow `deleting` and keep
runs true by `recounting`), the `repositories` and `persistence`.

Between writes `upkeep` makes questions quicker: by `counting` whose usage counts (the rule is in `usage`), and by
`compacting` what has arrived; `text_filters` notes what texts that has, and `attribute_places` tells where one may be.

What holds: an acknowledged batch is durable and whole; a span is stored once, however often it is sent; whatever OTLP
can say is in the columns or in `otlp_residue`; every event's run exists, and the run's time bounds cover its events.
"""

import lazy_loader

# Each name is imported once it is asked for, from where `__init__.pyi` says: what needs no database loads none.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
