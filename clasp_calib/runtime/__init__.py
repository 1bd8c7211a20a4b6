"""Layer fusion, token selection and pruning of a live model: what an artifact is for."""
