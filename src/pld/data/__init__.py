"""From a user's file to examples with ids and splits, and what to know about them first."""
