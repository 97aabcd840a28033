"""A row as any tool writes it -> a dialogue, or a pair of texts; what is wrong with it by name.

What a field of another tool means stands in one table (`fields`). It is obeyed, or refused by its
name: a row never means something else here than where it comes from. What nobody gave a meaning is
the user's own, ignored and counted.
"""
