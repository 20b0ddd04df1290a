"""`crisp compare`: what a compressed model costs and gains against the dense one, with statistics.

Reads labelled data with the training stage, so it belongs to the checkout and not into the bento.
"""
