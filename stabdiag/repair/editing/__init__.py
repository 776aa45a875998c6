"""Edits of someone's source file, made on LibCST's concrete tree so that formatting and comments survive."""
