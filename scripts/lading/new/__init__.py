"""A new image, or a new project: what `doit new` and `lading init` write, from what they read.

files and answers -> draft -> section of project.yaml, recipe folder
"""
