"""What tests share: private engines and registries, and a tiny image that needs no network.

`from tests.support import engines, images`
"""
