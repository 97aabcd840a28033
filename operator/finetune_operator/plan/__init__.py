"""Desired objects: job and attempt in, plain Kubernetes objects out.

Pure: no kopf, no Kubernetes client, no clock.
"""
