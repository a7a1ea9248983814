"""Prompt-Level Distillation: compile labelled data and a Teacher into a Student's system prompt."""
