"""Score labels with a local model: chat tokens, prefix cache, packed token trie, attention, LM head."""
