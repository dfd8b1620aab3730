"""The schema's history, by Alembic.

Versions are numbered in reading order and import nothing of clew: a version says what a database looked like then,
whatever the code says now. `clew migrate` runs them; so does `alembic` from a checkout, on the database that `CLEW_DB`
names.
"""
