"""Why a package is in an image: who wants it, and what each of them asks of its version.

graph: packages and who wants them, of any kind; python, condas, debs, compiled: such graphs out of
the locks of each kind of layer; words: what is said of a package. Nothing is asked of a network:
what the locks don't say is read from files that the store has already, and left open where it has
them not.
"""
