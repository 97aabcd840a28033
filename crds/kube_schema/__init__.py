"""Structural schemas and CEL rules of custom resources, as an API server applies them.

Knows no resource by name: the API and the emulator both stand on it.
"""
