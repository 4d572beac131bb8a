"""The software bill of materials of an image: what is in it, and what it was made with.

files (the package managers' own records, out of the archive) -> installed (what they say) ->
listing (with what the locks say: sha256, who wants what) -> document (CycloneDX)

It follows from the archive and the locks alone: the same archive gives the same bytes.
"""

FORMAT = 1
"""Raised when the same archive and locks would give another document."""

MEDIA_TYPE = "application/vnd.cyclonedx+json"
"""As registered with IANA."""
