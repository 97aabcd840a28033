"""Stored objects: written, versioned, listed, watched, deleted."""
