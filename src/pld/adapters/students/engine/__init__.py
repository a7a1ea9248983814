"""Score labels with a local model: tokens, the shared prefix, the token trie, attention, the LM head."""
