"""How results look: pairs of pictures, blind judgements, and measures beside the eye."""
