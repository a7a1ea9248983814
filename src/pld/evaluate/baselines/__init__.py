"""Baselines that the distilled prompt is measured against: prompting, no LLM, fine-tuning, prompt optimisation."""
