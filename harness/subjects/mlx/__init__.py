"""MLX and mlx-lm."""
