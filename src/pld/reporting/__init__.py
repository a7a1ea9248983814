"""artifacts/report/: one page that opens from disk without a network, and its charts as pictures."""
