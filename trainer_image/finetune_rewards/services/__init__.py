"""Rewards that a service gives over HTTP, and what holds a run while the service is down."""
