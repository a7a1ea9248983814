from support.small_students import make_student, smollm, smollm_folder, tiny_folder

__all__ = ["make_student", "smollm", "smollm_folder", "tiny_folder"]
