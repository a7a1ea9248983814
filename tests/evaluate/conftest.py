from support.anthropic_server import anthropic_server
from support.small_students import make_student, smollm, smollm_folder, tiny_folder

__all__ = ["anthropic_server", "make_student", "smollm", "smollm_folder", "tiny_folder"]
