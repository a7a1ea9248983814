"""MLflow: runs, versions, promotion gates, and the aliases that say what is in production."""
