"""The course of a run, for those who watch it: progress, heartbeat, curves, trackers, the report.

Is told numbers and tells them on; nothing here touches a model, and what fails here never stops a
run.
"""
