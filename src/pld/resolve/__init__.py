"""The closed loop: find instructions that mislead the Student, propose Edits, and accept only proven ones."""
