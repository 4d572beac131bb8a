"""CI: what a runner has to make, found by keys, and the workflows that let runners make it.

section → layout → stale → github, gitlab · login · summary
"""
