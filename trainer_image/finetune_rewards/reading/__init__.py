"""What a completion says: its answer apart from its thought, and what it settles on in the end."""
