"""conda without conda: the user's channels, resolving, and prefixes, by way of py-rattler.

py-rattler itself runs only in a process of its own (`worker.py` starts it, `inside.py` is what
runs there): it may crash when its interpreter ends, and a large channel takes gigabytes.
"""
