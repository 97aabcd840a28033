"""From JSONL to checked, encoded rows, and from a step's number to the rows of its batch.

Nothing here imports torch: what is wrong with the data is found, with file and row, before a model
is loaded. No row is ever dropped, cut or repaired in silence.
"""
