"""report.html: one run on one page, published beside the adapter.

The page stands alone: no scripts, no requests, its curves are SVG. Records come in, text goes out;
nothing here reads files or knows of training.
"""
