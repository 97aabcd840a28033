"""Where curves are sent while a run trains: one file per tracker, all behind `Tracker`.

A tracker only speaks to its server or file. Threads, patience and the choice of what to send are
tracking.py's; a library that a tracker needs is imported only when that tracker is asked for.
"""
