"""What was found: findings, records, and the folder and history that keep them."""
