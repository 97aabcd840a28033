"""A data file as its owner wrote it -> numbered JSON objects, in constant memory.

What a file is, its first bytes tell; CSV, which has none of its own, its name. Nothing is guessed
about what a row means.
"""
