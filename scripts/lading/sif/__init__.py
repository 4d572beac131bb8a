"""The SIF of an image: made by Apptainer from its archive, tested, the same bytes every time."""
