from support.shelf import filled_shelf, fresh_database, shelf, store

__all__ = ["filled_shelf", "fresh_database", "shelf", "store"]
