"""What `doit` can do to an image, one module a verb.

Each has `current(state, image)`, which decides whether there is nothing to do, and
`make(state, image)`, which does it and says in a few words what it made.
"""
