"""Prompt-Level Distillation inside other tools."""
