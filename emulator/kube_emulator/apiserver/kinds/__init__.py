"""Kinds of objects: names, schemas, defaults, and what each of them refuses."""
