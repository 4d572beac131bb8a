"""How a YAML file is read into plain data, with every problem in it and the line of each.

nodes: the file as a tree with lines; scalars and shapes: what may stand where, which also gives
the JSON schema; problems: what is wrong, in words.
"""
