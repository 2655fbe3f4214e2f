"""What frozen features are worth: probes as pure functions of feature and label tensors."""
