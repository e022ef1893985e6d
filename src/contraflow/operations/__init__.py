"""Operations and planning: blind to dialects, no I/O."""
