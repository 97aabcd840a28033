"""Desired objects, one builder file per kind: job and attempt in, plain Kubernetes objects out.

Pure: no kopf, no Kubernetes client, no clock.
"""
