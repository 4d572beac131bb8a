"""What is run as a process of its own: in a container of the base, or as a child to look at."""
