"""What moved in the locks between two commits.

git: what a repository says of two revisions; reading: the locks of one of them, as what they pin;
words: the answer, as text, as Markdown and as JSON.
"""
