"""A distilled prompt as a classifier: the pyfunc model, requests, files in batches, the serving log, drift, export."""
