"""The results: findings, records, and the folder and history that keep them."""
