"""From labelled examples to a system prompt: extract rules, cluster, consolidate, render, sweep over settings."""
