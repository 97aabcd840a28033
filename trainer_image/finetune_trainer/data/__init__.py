"""From JSONL to checked, encoded rows.

Nothing here imports torch: what is wrong with the data is found, with file and row, before a model
is loaded. No row is ever dropped, cut or repaired in silence.
"""
