"""Spans asked for: knows HTTP and SELECT.

A question is a plain function of a `Reader` and its parameters: `runs`, `events`, `event_detail`, `tree_answer`,
`statistics`; `files`, `messages`, `costs`, `graph` and `history` for what belongs to a run's events; `sessions`; and
`provenance` from a file to whoever wrote it. `parameters` reads what was asked, `asking` puts the question to the store
on a bounded number of threads within a time limit, `errors` says in one shape what went wrong, `api` and
`provenance_api` give each question its address and `app` joins all that into one application. `tree` is arithmetic on
arrays and knows neither HTTP nor SQL, and so are `alignment` of two trees and `critical_path`, which `comparison` and
`critical_path_answer` ask for. `figures` reckons over any events, `dependencies` tells who calls whom. `jaeger` asks
the same store in Jaeger's words, over HTTP and gRPC.

What holds: a question reads one consistent state; it finds a run by its key and the run's events within the run's time
bounds, so that its cost does not grow with the rest of the store; events look the same in every answer, and are
written as JSON by columns; nothing is hidden because it does not fit (orphans and cycles are shown and counted).
"""
