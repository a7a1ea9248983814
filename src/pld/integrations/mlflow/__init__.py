"""Prompt-Level Distillation as an optimizer for mlflow.genai.optimize_prompts."""
