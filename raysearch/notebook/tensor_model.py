"""x."""
class TensorModel:
    """A network on tensors to look into."""
