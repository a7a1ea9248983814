from support.new_task import file, here
from support.shelf import filled_shelf, fresh_database, shelf, store

__all__ = ["file", "filled_shelf", "fresh_database", "here", "shelf", "store"]
